# An image of Bulkhead: the one program, at /bulkhead, and nothing else. The server
# runs from it, and worker pods take the program from it into images of any kind.
#
#   make build && docker build --tag registry.example/bulkhead:$(git describe --tags) . && docker push …
#
# podman and buildah build it, too. For other machines: make build GOARCH=arm64.
FROM scratch
COPY bin/bulkhead /bulkhead
USER 65532:65532
ENTRYPOINT ["/bulkhead"]
