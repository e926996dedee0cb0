#!/usr/bin/env bash
# Makes the files that compose.ha.yaml, nats/cluster.conf and nats/accounts.conf need: an authority, a certificate
# for each server and each user of the broker, and a password for Redis.
#   compose/gen-certs.sh [DIRECTORY]      the default is compose/certs
#
# For development: the authority's key stays beside the certificates. In production let your own authority sign.
# What counts is the name in each certificate:
#   server   DNS names: clients check them, and brokers know each other's routes by them
#   user     an e-mail address: the broker knows the user of nats/accounts.conf by it
# To renew certificates, run this again: a directory that has an authority keeps it, and all other certificates are
# made anew. Nodes read them at their next connect, the broker on SIGHUP.
#
# Only the directory itself keeps other users of this machine out. The files below it are readable by all, since
# other users read them in containers.
set -euo pipefail
umask 022
directory=${1:-$(dirname "${BASH_SOURCE[0]}")/certs}
mkdir -p "$directory"
chmod 700 "$directory"
cd "$directory"

readonly DAYS=365
# Redis replays its append-only file as the user `default` at each start. Commands that this user may not execute are
# lost, and with them all writes of a script. As the user is off, nobody can log in as it.
readonly DEFAULT_USER="user default off ~* &* +@all"
# Users of the broker. The certificate of each names USER@mufakat.
readonly USERS="node operator monitor team_a team_b reports"

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

if ! [ -f ca-key.pem ]; then
    (umask 077 && key ca-key.pem)
    openssl req -x509 -new -key ca-key.pem -sha256 -days 3650 -out ca.pem \
        -subj "/O=Mufakat/CN=authority $(openssl rand -hex 4), for development" \
        -addext "keyUsage=critical,keyCertSign,cRLSign"
fi

# certificate NAME USAGES SUBJECT_ALTERNATIVE_NAMES: makes one in a directory of its own, which can be mounted alone.
certificate() {
    local name=$1 usages=$2 names=$3
    mkdir -p "$name"
    key "$name/key.pem.new"
    openssl req -new -key "$name/key.pem.new" -subj "/O=Mufakat/CN=$name" |
        openssl x509 -req -sha256 -days "$DAYS" -CA ca.pem -CAkey ca-key.pem -out "$name/cert.pem.new" \
            -set_serial "0x$(openssl rand -hex 16)" \
            -extfile <(printf '%s\n' "basicConstraints=critical,CA:FALSE" "keyUsage=critical,digitalSignature" \
                "extendedKeyUsage=$usages" "subjectAltName=$names") 2>/dev/null
    cp ca.pem "$name/ca.pem"
    mv "$name/cert.pem.new" "$name/cert.pem"
    mv "$name/key.pem.new" "$name/key.pem"
    chmod 644 "$name"/*.pem
}

# Brokers are also clients of each other, under the names of their routes.
certificate nats serverAuth,clientAuth \
    DNS:nats-1,DNS:nats-2,DNS:nats-3,DNS:nats-1.routes,DNS:nats-2.routes,DNS:nats-3.routes,DNS:localhost,IP:127.0.0.1
certificate redis serverAuth,clientAuth DNS:redis,DNS:localhost,IP:127.0.0.1
for user in $USERS; do certificate "$user" clientAuth "email:$user@mufakat"; done

# Redis knows the hash, nodes know the password. The password stays when certificates are renewed.
if ! [ -f node/redis-url ]; then
    password=$(openssl rand -hex 32)
    printf 'rediss://mufakat:%s@redis:6379\n' "$password" >node/redis-url
    {
        printf '%s\n' "$DEFAULT_USER"
        printf '%s\n' "user health on nopass resetkeys -@all +ping"
        printf 'user mufakat on #%s ~* resetchannels +@all -@admin -@dangerous +info +config|get\n' \
            "$(printf %s "$password" | sha256sum | cut -d ' ' -f 1)"
    } >redis/users.acl
    chmod 644 node/redis-url redis/users.acl
# An older file may have a user `default` without rights, which is mended. Any other file belongs to its author.
elif [ -f redis/users.acl ] && grep -qx "user default off" redis/users.acl; then
    { printf '%s\n' "$DEFAULT_USER" && grep -vx "user default off" redis/users.acl; } >redis/users.acl.new
    chmod 644 redis/users.acl.new
    mv redis/users.acl.new redis/users.acl
fi
