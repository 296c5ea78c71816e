#!/bin/sh
# Temporal's two databases, made or brought up to date. May run again at any time.
set -eu
for database in temporal temporal_visibility; do
    tables=temporal
    [ "$database" = temporal_visibility ] && tables=visibility
    # Both refuse what is there already; what is really wrong shows in the last step.
    temporal-sql-tool --database "$database" create || true
    temporal-sql-tool --database "$database" setup-schema --version 0.0 || true
    temporal-sql-tool --database "$database" update-schema \
        --schema-dir "/etc/temporal/schema/postgresql/v12/$tables/versioned"
done
