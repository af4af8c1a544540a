# One image for every part: tidal worker, tidal queryd, tidal topics init, tidal log.
FROM python:3.12.7-slim-bookworm AS build
WORKDIR /src
COPY requirements-build.lock requirements.lock ./
RUN python -m venv /opt/tidal \
 && /opt/tidal/bin/pip install --no-cache-dir --quiet --require-hashes -r requirements-build.lock \
 && /opt/tidal/bin/uv pip sync --no-cache --quiet --python /opt/tidal/bin/python --require-hashes requirements.lock
COPY . .
RUN /opt/tidal/bin/pip install --no-cache-dir --quiet --require-hashes -r requirements-build.lock \
 && /opt/tidal/bin/pip install --no-cache-dir --quiet --no-deps --no-build-isolation --no-index . \
 && /opt/tidal/bin/pip uninstall --yes --quiet uv

FROM python:3.12.7-slim-bookworm
RUN useradd --system --create-home --uid 10001 tidal && mkdir /data && chown tidal /data
COPY --from=build /opt/tidal /opt/tidal
ENV PATH=/opt/tidal/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    OPENBLAS_NUM_THREADS=1
USER tidal
VOLUME /data
# SIGTERM is how every part is asked to write its last checkpoint; Docker's default of 10 s is enough for it.
STOPSIGNAL SIGTERM
ENTRYPOINT ["tidal"]
CMD ["up", "--data", "/data"]
