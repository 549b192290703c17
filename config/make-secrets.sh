#!/bin/sh
# Makes the secrets that compose.yaml names, each in a file of its own: sh config/make-secrets.sh [FOLDER]
# What is there already stays. The containers' users read the files, so only the folder keeps other people of this machine out.
set -eu
folder=${1:-secrets}
mkdir -p "$folder"
chmod 700 "$folder"
cd "$folder"

for name in emqx_cookie emqx_dashboard_password gateway_password redis_password database_password database_root_password api_token; do
    test -s "$name" || head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$name"
done
# What EMQX reads of the gateway's password, and the back end of the token.
test -s gateway_user.csv || printf 'user_id,password,is_superuser\nsluicegate,%s,false\n' "$(cat gateway_password)" > gateway_user.csv
test -s api_token_sha256 || sha256sum < api_token | cut -d ' ' -f 1 > api_token_sha256
chmod 644 -- *
