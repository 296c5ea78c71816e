#!/bin/sh
# The namespace of the shop, once Temporal answers. Ended workflows are kept for 30 days. May run again at any time.
set -eu
until temporal operator cluster health; do sleep 2; done
temporal operator namespace describe --namespace default ||
    temporal operator namespace create --namespace default --retention 30d
