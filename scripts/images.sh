#!/usr/bin/env bash
# Builds the images of docker/Dockerfile from the programs in dist/images (make image-programs):
#   scripts/images.sh [TARGET…]        inference up native statistics server, or some of them
# With buildah if there is one, else docker. Settings (environment): TAG, IMAGE_ARCH, IMAGE_ARGS for further
# arguments of the builder. Two builds of the same tree give the same image: all times in it are SOURCE_DATE_EPOCH.
set -euo pipefail
cd "$(dirname "$0")/.."
TAG=${TAG:-latest} ARCH=${IMAGE_ARCH:-$(go env GOARCH)} EPOCH=${SOURCE_DATE_EPOCH:-0}
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(inference up native statistics server)
[ -x "dist/images/linux-$ARCH/clearml-serving" ] || { echo "images: dist/images/linux-$ARCH has no programs: make image-programs" >&2; exit 1; }
read -ra more <<<"${IMAGE_ARGS:-}"
for target in "${targets[@]}"; do
  name=clearml-serving-$target:$TAG
  echo "images: $name" >&2
  if command -v buildah >/dev/null; then
    # --format docker: HEALTHCHECK is not in the OCI format.
    buildah build --quiet --format docker --timestamp "$EPOCH" --layers --build-arg PROGRAMS=prebuilt --build-arg TARGETARCH="$ARCH" \
      ${more[@]+"${more[@]}"} -f docker/Dockerfile --target "$target" -t "localhost/$name" .
  else
    SOURCE_DATE_EPOCH=$EPOCH docker buildx build --platform "linux/$ARCH" --build-arg PROGRAMS=prebuilt \
      ${more[@]+"${more[@]}"} -f docker/Dockerfile --target "$target" -t "$name" --load .
  fi
done
