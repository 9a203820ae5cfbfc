# In place of the image `rclone/rclone` where that cannot be had: the same program, from PyPI.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
COPY rclone /usr/local/bin/
ENTRYPOINT ["rclone"]
