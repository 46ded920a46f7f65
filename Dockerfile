# Serves an exported model without torch:  viralbert export runs/sample/viralbert -o model && docker compose up --build
# The model is mounted, nothing is fetched at the start. By itself it wants a key: docker run -e VIRALBERT_API_KEY=<a secret> ... viralbert
FROM python:3.11.14-slim-trixie

WORKDIR /app
COPY requirements.lock pyproject.toml README.md ./
# What serving needs, in the versions of the lock, which as a constraint names those of their own needs too.
RUN pip install --no-cache-dir --constraint requirements.lock \
    fastapi numpy onnxruntime prometheus-client pysubs2 python-multipart razdel scipy tokenizers \
    uvicorn
COPY viralbert_utils viralbert_utils
COPY viralbert viralbert
RUN pip install --no-cache-dir --no-deps . && useradd --no-create-home --uid 10001 viralbert

USER 10001
ENV PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "-c", \
    "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
CMD ["viralbert", "serve", "--model", "/model", "--host", "0.0.0.0"]
