#!/bin/sh
# Sets up .venv in this checkout where that is still to be done, then runs kdsearch with the arguments given:
# none means `search ips`. Runs are kept in ./runs of the folder it is called from.
set -eu
# shellcheck source=launch/setup.sh
. "$(dirname -- "$0")/setup.sh"

prepare run
[ $# -gt 0 ] || set -- search ips
exec kdsearch "$@"
