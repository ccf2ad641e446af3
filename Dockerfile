# The photo search of `miniclip serve` in a container, as a user without rights, without a network of its own need.
#
#   docker build -t miniclip .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/photos.index:/index:ro" miniclip
#
# Served pictures lie outside the index: for an index of a folder, mount that folder read-only, too, under the path it had when it was indexed.
# For other machines: -p 8000:8000 -e MINICLIP_TOKEN=..., and after the name of the image: /index --host 0.0.0.0
FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 UV_LINK_MODE=copy
RUN pip install "uv>=0.13,<1" && uv venv /opt/miniclip
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY data data
COPY notebooks notebooks
COPY miniclip_helpers miniclip_helpers
# torch for processors alone: the default one brings 4 GB for graphics cards. Its index gives no dates, so the project's `exclude-newer` would find none there
RUN VIRTUAL_ENV=/opt/miniclip uv pip install --torch-backend=cpu --exclude-newer-package torch=false --exclude-newer-package torchvision=false --compile-bytecode .

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --create-home miniclip
COPY --from=build /opt/miniclip /opt/miniclip
ENV PATH=/opt/miniclip/bin:$PATH MINICLIP_OFFLINE=1 MINICLIP_PROGRESS=0 MINICLIP_CACHE=/tmp/miniclip PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/miniclip
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", "from urllib import request; request.build_opener(request.ProxyHandler({})).open('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["miniclip", "serve"]
# By these names alone: else a page of another site could point its own name at the published port
CMD ["/index", "--host", "0.0.0.0", "--allow-host", "localhost"]
