#!/bin/sh
# Prints the users of a Redis (7 or newer, or Valkey) for its `aclfile`: producer, worker and flower, each with
# the keys, channels and commands that it needs, and no default user.
#
#     REDIS_PRODUCER_PASSWORD=… REDIS_WORKER_PASSWORD=… REDIS_FLOWER_PASSWORD=… sh redis_acl.sh > users.acl
#
# A password may be in a file instead, which REDIS_…_PASSWORD_FILE names. What is printed holds hashes only. redis.conf
# names it: `aclfile /etc/redis/users.acl`, instead of `requirepass`.
# Rules are words of one text: %R~ reads, %W~ writes, ~ does both, & names channels, and brackets group a selector.
# Redis checks what a script does as if its user had done it.
set -efu

hash() {
    case $2 in
        *[!A-Za-z0-9_-]* | '')
            echo "$1: letters, digits, - and _ only, and at least one, for it is put into a URL" >&2
            exit 2
            ;;
    esac
    printf %s "$2" | sha256sum | cut -d ' ' -f 1
}

# The password in the variable $1, or in the file that the variable $1_FILE names.
password() {
    eval "value=\${$1:-} file=\${$1_FILE:-}"
    if [ -n "$file" ] && [ -n "$value" ]; then
        echo "$1_FILE: $1 is set too: remove one of them" >&2
    elif [ -n "$file" ]; then
        cat "$file"
    else
        printf %s "$value"
    fi
}

user() {
    printf 'user %s on resetpass #%s resetkeys resetchannels -@all' "$1" "$2"
    printf ' %s' $3
    printf '\n'
}

# No command here reaches other keys than those named: no KEYS, SCAN or FLUSHALL, and no CONFIG, ACL or DEBUG. INFO says
# whether Redis may drop keys.
commands='+@connection +@transaction +@string +@list +@set +@hash +@sortedset +@stream +@bitmap +@pubsub
    +time +evalsha +script|load +script|exists +del +exists +expire +pexpire +persist +ttl +pttl -@admin -@dangerous
    +info'

# Submits, controls and watches. Watching puts back leases that ran out. It cannot remove a wake-up or speak for a
# worker. A script that finds a key of the wrong kind drops it, and asks for its length first.
producer="$commands +rename
    ~imagemill:numbers ~imagemill:jobs ~imagemill:active ~imagemill:output:* ~imagemill:job:*
    ~imagemill:confirmed ~imagemill:ledger ~imagemill:leases ~imagemill:reaped ~imagemill:claimable ~imagemill:claimable:*
    ~imagemill:swept ~imagemill:counted
    %R~imagemill:workers %R~imagemill:worker:* %R~imagemill:rates
    (-@all +xlen +hlen +expire ~imagemill:events ~imagemill:rows)
    (-@all +lpush +llen ~imagemill ~imagemill[^:]*) (-@all +@set ~_kombu.binding*.imagemill)"

# Celery's queues (the second pattern: its priorities), bindings, events, questions and answers.
celery='~unacked* ~_kombu.* ~celeryev.* ~*.celery.pidbox* &/0.celeryev/* &/0.celery.pidbox'

# Renders. It cannot decide what is rendered, by which model, or into which folder: it only reads the parts of a job
# that begin with s, its spec and its shards, and sets their time to live.
worker="$commands $celery ~imagemill ~imagemill[^:]*
    %R~imagemill:job:* ~imagemill:job:*[0-9] ~imagemill:job:*:[^s]* ~imagemill:jobs ~imagemill:active
    ~imagemill:ledger ~imagemill:leases ~imagemill:reaped ~imagemill:claimable ~imagemill:claimable:* ~imagemill:swept
    ~imagemill:counted ~imagemill:output:* ~imagemill:events ~imagemill:rows ~imagemill:rates
    ~imagemill:workers ~imagemill:worker:*
    (-@all +hlen %R~imagemill:numbers) (-@all +expire %W~imagemill:job:*:spec %W~imagemill:job:*:shards)"

# Shows workers and tasks. It knows only what tasks say about their jobs, and the length of the queue.
flower="$commands $celery (-@all +llen ~imagemill ~imagemill[^:]*)"

producer_hash=$(hash REDIS_PRODUCER_PASSWORD "$(password REDIS_PRODUCER_PASSWORD)")
worker_hash=$(hash REDIS_WORKER_PASSWORD "$(password REDIS_WORKER_PASSWORD)")
flower_hash=$(hash REDIS_FLOWER_PASSWORD "$(password REDIS_FLOWER_PASSWORD)")
# Off: nobody can be this user, with or without a password. But Redis 7.0 reads its own appendonly file as this user
# when it starts, and would leave out all that it may not do: every job would be lost.
echo 'user default off resetpass ~* &* +@all'
user producer "$producer_hash" "$producer"
user worker "$worker_hash" "$worker"
user flower "$flower_hash" "$flower"
