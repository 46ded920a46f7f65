"""The commands of `viralbert`: what they read from the command line, and what they say."""
