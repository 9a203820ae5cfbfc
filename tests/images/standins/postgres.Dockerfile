# In place of the image `postgres` where that cannot be had: Debian's PostgreSQL, told by the same
# variables, with its data in the same folder.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN apt-get update -q && apt-get install -y -q --no-install-recommends postgresql-15
ENV PATH=/usr/lib/postgresql/15/bin:$PATH PGDATA=/var/lib/postgresql/data
COPY postgres.sh /
RUN mkdir -p "$PGDATA" && chown postgres "$PGDATA"
USER postgres
CMD ["sh", "/postgres.sh"]
