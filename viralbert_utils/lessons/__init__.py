"""Code that one lesson needs: 05 correlation; 07 columns, hybrid, cascade, plain_tfidf; 08 label
errors; 10 pretraining."""
