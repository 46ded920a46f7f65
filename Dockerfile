# Serves an exported model without torch:  viralbert export runs/sample/viralbert -o model && docker compose up --build
# The model is mounted, nothing is fetched at the start. By itself it wants a key: docker run -e VIRALBERT_API_KEY=<a secret> ... viralbert
FROM python:3.11.14-slim-trixie

WORKDIR /app
COPY requirements-image.lock pyproject.toml README.md ./
RUN pip install --no-cache-dir --require-hashes --requirement requirements-image.lock
COPY viralbert_utils viralbert_utils
COPY viralbert viralbert
RUN pip install --no-cache-dir --no-deps . && useradd --no-create-home --uid 10001 viralbert

USER 10001
ENV PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "-c", \
    "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
CMD ["viralbert", "serve", "--model", "/model", "--host", "0.0.0.0"]
