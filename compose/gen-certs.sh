#!/usr/bin/env bash
# Makes what compose.ha.yaml, nats/cluster.conf and nats/accounts.conf need: an authority, a certificate
# for each server and each user of the broker, and a password for Redis.
#   compose/gen-certs.sh [DIRECTORY]      the default is compose/certs
#
# For development: the authority's key stays beside the certificates. In production let your own authority
# sign; what counts is the name in each certificate:
#   server   DNS names, which clients check, and by which brokers know each other's routes
#   user     an e-mail address, by which the broker knows the user of nats/accounts.conf
# A directory that has an authority keeps it: the others are made anew, which is how certificates are
# renewed. Nodes read them at their next connect, the broker on SIGHUP.
#
# Only the directory itself keeps other users of this machine out: below it files are readable by all, since
# in containers they are read by other users.
set -euo pipefail
umask 022
directory=${1:-$(dirname "${BASH_SOURCE[0]}")/certs}
mkdir -p "$directory"
chmod 700 "$directory"
cd "$directory"

readonly DAYS=365
# Redis carries out its append-only file as the user `default`, at each start: what that may not do is lost,
# of scripts all that they wrote. As it is off, nobody logs in as it.
readonly DEFAULT_USER="user default off ~* &* +@all"
# Whoever a user of the broker is, its certificate says USER@mufakat.
readonly USERS="node operator monitor team_a team_b reports"

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

if ! [ -f ca-key.pem ]; then
    (umask 077 && key ca-key.pem)
    openssl req -x509 -new -key ca-key.pem -sha256 -days 3650 -out ca.pem \
        -subj "/O=Mufakat/CN=authority $(openssl rand -hex 4), for development" \
        -addext "keyUsage=critical,keyCertSign,cRLSign"
fi

# certificate NAME USAGES SUBJECT_ALTERNATIVE_NAMES: in a directory of its own, to be mounted alone.
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

# Brokers are clients of each other, too, under the names of their routes.
certificate nats serverAuth,clientAuth \
    DNS:nats-1,DNS:nats-2,DNS:nats-3,DNS:nats-1.routes,DNS:nats-2.routes,DNS:nats-3.routes,DNS:localhost,IP:127.0.0.1
certificate redis serverAuth,clientAuth DNS:redis,DNS:localhost,IP:127.0.0.1
for user in $USERS; do certificate "$user" clientAuth "email:$user@mufakat"; done

# Redis knows the hash, nodes the password; it stays when certificates are renewed.
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
# A file from before may have a user `default` without rights; another one is its owner's.
elif [ -f redis/users.acl ] && grep -qx "user default off" redis/users.acl; then
    { printf '%s\n' "$DEFAULT_USER" && grep -vx "user default off" redis/users.acl; } >redis/users.acl.new
    chmod 644 redis/users.acl.new
    mv redis/users.acl.new redis/users.acl
fi
