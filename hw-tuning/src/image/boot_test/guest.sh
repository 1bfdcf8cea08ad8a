# What `lode-tune image boot-test` has an image do, as root, inside the machine that it booted. PHASE says which part; every line
# that goes to the port is one that the test reads. Nothing of this is in an image: it comes on a disk of its own.
set -u
here=/run/lode-test
port=$(echo /dev/vport*p1)
profile=$here/profile.toml
log=$here/log
# Limits of a process are those of the unit that it runs in: here they are as the node's.
ulimit -n 65536
ulimit -l unlimited

say() { echo "$*" >"$port"; }

# The name of a step, and the function that does it; the first that fails ends the machine.
step() {
    # Not within the condition: `set -e` does not count there.
    (set -e; "$2") >"$log" 2>&1
    if [ $? -eq 0 ]; then
        say "ok $1"
    else
        tail -n 12 "$log" | cut -c1-300 | while read -r line; do say "told $line"; done
        say "failed $1"
        finish
    fi
}

finish() {
    say "end"
    sync
    systemctl poweroff
    exit 0
}

# An exit code that is expected, and any command.
exits() {
    wanted=$1
    shift
    code=0
    "$@" || code=$?
    [ "$code" -eq "$wanted" ] || { echo "exit code $code, not $wanted: $*"; return 1; }
}

check() { lode-tune check --profile "$profile" "$@"; }

serves() {
    for _ in $(seq 600); do
        case $(systemctl is-active lode.service) in
            active) break ;;
            failed) systemctl status lode.service; return 1 ;;
        esac
        sleep 0.1
    done
    systemctl is-active lode.service || { systemctl status lode-drive lode-format lode; return 1; }
    lode ping
    [ "$(systemctl show -P User lode.service)" = lode ]
    # The node itself holds the raw drive, and it is the one with blocks of 4 KiB.
    drive=$(readlink -f /dev/lode/drive)
    [ "$(cat "/sys/block/${drive#/dev/}/queue/logical_block_size")" = 4096 ]
    exits 2 lode-tune measure --drive id:LODE-4KN
}

inspected() {
    lode-tune inspect --json >$here/machine.json
    cat $here/machine.json
    for words in '"serial": "LODE-4KN"' '"serial": "LODE-512"' '"logical_block_bytes": 4096' \
        '"logical_block_bytes": 512' '"poll_queues": 1'; do
        grep -qF "$words" $here/machine.json || { echo "no $words"; return 1; }
    done
    grep -q LODE-4KN /run/lode/machine.json
    # The drive that nothing uses was asked; the node's was not.
    grep -qF '"lba_formats": [' $here/machine.json
    grep -q 'a node has it open' $here/machine.json
}

falls_short() {
    exits 1 check
    check --json >$here/before.json || true
    grep -q '"severity": "warn"' $here/before.json
}

applied() { lode-tune tune apply --profile "$profile"; }

passes() {
    # What is short comes first, and the end of the log is what is told.
    check >$here/checked || { grep -A 2 -E '^(warn|FATAL)' $here/checked; return 1; }
}

reverted() {
    lode-tune tune revert
    check --json >$here/after.json || true
    # Memory that is free, and the like, move by themselves.
    diff $here/before.json $here/after.json
    [ ! -e /var/lib/lode-tune/journal ]
}

hardened() {
    for unit in lode.service lode-tune.service lode-drive.service lode-format.service lode-measure.service; do
        # From its file, for one is left out of this boot.
        systemd-analyze security --no-pager --offline=yes --threshold=20 /etc/systemd/system/$unit >$here/exposure ||
            { tail -3 $here/exposure; return 1; }
    done
}

nobody_logs_in() {
    [ -z "$(cut -d: -f2 /etc/shadow | grep -v '^[*!]')" ]
    [ "$(systemctl is-enabled getty.target)" = masked ]
    if ! [ -e /root/.ssh/authorized_keys ]; then ! [ -e /usr/sbin/sshd ]; fi
}

# The unit has run before the node, on an empty drive that was then formatted by nobody's hand, and the node goes by what it wrote.
measured_at_boot() {
    for wanted in ConditionResult=yes Result=success ExecMainStatus=0; do
        systemctl show -p "${wanted%%=*}" lode-measure.service | grep -qx "$wanted" ||
            { systemctl status lode-measure.service; journalctl -b -u lode-measure -o cat --no-pager; return 1; }
    done
    grep -q 'serial = "LODE-4KN"' /var/lib/lode/io-properties.toml
    journalctl -b -u lode.service -o cat --no-pager | grep -m1 'as measured (/var/lib/lode/io-properties.toml)' ||
        { journalctl -b -u lode.service -o cat --no-pager; return 1; }
}

measured() { lode-tune measure --drive id:LODE-512 --area 16MiB --point 0.01 --output $here/io.toml; }

loaded() {
    lode load /usr/share --table files --partitions 1200 --state $here/load.state --verify
    say "told $(lode count files) records loaded, read back and compared"
    say "files $(lode scan files --json | sha256sum | cut -d' ' -f1)"
}

files_are_there() { [ "$(lode scan files --json | sha256sum | cut -d' ' -f1)" = "$FILES" ]; }

formats_lba() {
    block() { cat "$(dirname "$(dirname "$(grep -l LODE-512 /sys/block/nvme*/device/serial)")")/queue/logical_block_size"; }
    exits 2 lode-tune format-lba --drive id:LODE-4KN --block 512
    exits 64 lode-tune format-lba --drive /dev/nvme1n1 --block 4096
    [ "$(block)" = 512 ]
    lode-tune format-lba --drive id:LODE-512 --block 4096
    [ "$(block)" = 4096 ]
}

# 64 records of writer $1 in batch $2.
batch() { awk -v w="$1" -v b="$2" 'BEGIN { for (i = 0; i < 64; i++) { k = sprintf("%d-%06d-%02d", w, b, i); v = k; while (length(v) < 700) v = v ":" k; print "put " k " " v } }'; }

writer() {
    b=0
    while :; do
        batch "$1" $b >"$here/batch.$1"
        lode batch "ledger$1" "$here/batch.$1" >/dev/null || exit 1
        say "acked $1 $b"
        b=$((b + 1))
    done
}

tables() { for w in 0 1 2; do lode table create "ledger$w" --placement range; done; }

write_until_the_power_goes() {
    for w in 0 1 2; do writer $w & done
    wait
}

# ACKED is "LAST0 LAST1 LAST2": the last batch of each writer whose answer was seen outside. The one after it may be there, but whole.
ledger() {
    w=0
    for last in $ACKED; do
        for b in $(seq 0 "$last"); do batch $w "$b"; done | cut -d' ' -f2- | sort >$here/wanted
        lode scan "ledger$w" --json >$here/scanned
        found=$(wc -l <$here/scanned)
        wanted=$(wc -l <$here/wanted)
        [ "$found" -ge "$wanted" ] || { echo "writer $w: $found records, $wanted were acknowledged"; return 1; }
        [ $((found % 64)) -eq 0 ] || { echo "writer $w: half a batch: $found records"; return 1; }
        # Keys are in order, so the records that were acknowledged come first.
        head -n "$wanted" $here/scanned | sed 's/.*"key_text":"\([^"]*\)".*"value_text":"\([^"]*\)".*/\1 \2/' >$here/found
        cmp $here/wanted $here/found
        w=$((w + 1))
    done
}

needle() {
    lode table create needles --placement range
    for i in 1 2 3 4 5 6 7 8; do
        lode put needles "k$i" "$(awk -v w="needle-$i-$NEEDLE" 'BEGIN { while (n++ < 400) printf "%s.", w }')"
    done
    lode checkpoint
}

media_error() {
    code=0
    lode get needles k4 >$here/got 2>&1 || code=$?
    [ "$code" -ne 0 ] || { echo "the record under the bad block was read"; return 1; }
    cat $here/got
    say "told $(head -n1 $here/got)"
    dmesg | grep -E 'critical medium error|Unrecovered Read Error|Medium Error' | head -n 2
    dmesg | grep -qE 'critical medium error'
    for i in 1 8; do lode get needles "k$i" | grep -q "needle-$i-"; done
    lode put needles another value
    [ "$(lode get needles another)" = value ]
    systemctl is-active lode.service
}

tuned_at_boot() {
    systemctl is-active lode-tune.service || { journalctl -b -u lode-tune.service -o cat --no-pager; return 1; }
    passes
}

case $PHASE in
    quick)
        step "the node serves on a raw drive with blocks of 4 KiB" serves
        step "its drive was measured at the first boot, and it goes by that" measured_at_boot
        step "units are hardened" hardened
        step "nobody logs in by password" nobody_logs_in
        step "files are loaded, read back and compared" loaded
        ;;
    first)
        step "inspect sees two drives and the poll queue" inspected
        step "check falls short before tuning" falls_short
        step "apply writes and reads back" applied
        step "check passes" passes
        step "the node serves on a raw drive with blocks of 4 KiB" serves
        step "its drive was measured at the first boot, and it goes by that" measured_at_boot
        step "units are hardened" hardened
        step "nobody logs in by password" nobody_logs_in
        step "a drive is measured, and one with data is refused" measured
        # Before the files, so that what is replayed after the cut lies elsewhere.
        step "records over which the medium will fail" needle
        step "files are loaded, read back and compared" loaded
        step "a drive gets blocks of 4 KiB, and one with data is refused" formats_lba
        step "revert restores" reverted
        step "tables for the power cut" tables
        say writing
        write_until_the_power_goes
        ;;
    second)
        step "the machine is tuned at boot" tuned_at_boot
        step "the node serves after the power was cut, on a drive with a bad block" serves
        step "the media error is told, and survived" media_error
        step "every acknowledged write is there" ledger
        step "the files are as they were" files_are_there
        ;;
esac
say done
finish
