FROM python:3.11-slim AS build
WORKDIR /build
COPY requirements.lock ./
RUN python -m venv --copies /venv \
 && /venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock

FROM python:3.11-slim
RUN groupadd --system --gid 10001 factledger \
 && useradd --system --uid 10001 --gid factledger --home-dir /data --no-create-home factledger \
 && install --directory --owner factledger --group factledger --mode 0700 /data
COPY --from=build /venv /venv
WORKDIR /app
COPY migrations ./migrations
COPY service ./service
# The layout of a checkout: the source root on the path, the migrations beside it.
RUN printf '#!/bin/sh\nexec /venv/bin/python -c "import sys; from factledger.cli import main; sys.exit(main())" "$@"\n' \
    > /venv/bin/factledger \
 && chmod 0755 /venv/bin/factledger \
 && /venv/bin/python -m compileall -q service
ENV PATH=/venv/bin:$PATH \
    PYTHONPATH=/app/service \
    PYTHONUNBUFFERED=1 \
    HOME=/data \
    XDG_DATA_HOME=/data
USER factledger
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
ENTRYPOINT ["factledger"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
