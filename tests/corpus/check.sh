#!/usr/bin/env bash
# Runs V1 (schemas/verifier/verify.sh) and V2 (tests/v2) over schemas/vectors/receipts and compares the last line and the exit
# status with cases.json. First it makes the corpus anew and compares that with the one in the repository.
# Needs Go and what V1 needs. CHECK_JOBS sets how many run at once.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
vectors=$root/schemas/vectors/receipts
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
(cd "$root/tests/v2" && go build -o "$tmp/v2" .)
(cd "$root/tests/corpus" && go build -o "$tmp/corpus" .)
export root vectors tmp

compare() { # compare WHO CASE EXPECTED COMMAND...: one line, starting with pass, skip or FAIL
  local who=$1 name=$2 want=$3 got status code=0
  shift 3
  case $want in
    n/a) echo skip; return ;;
    VALID\ *) status=0 ;; INVALID\ *) status=1 ;; INCOMPLETE\ *) status=2 ;; UNKNOWN-FORMAT\ *) status=3 ;;
    *) echo "FAIL $who $name: no such verdict: $want"; return ;;
  esac
  got=$("$@" "$vectors/$name/"{file,entry.json,receipt.tlog-proof,policy.txt} 2>/dev/null) || code=$?
  got=${got##*$'\n'}
  if [[ $got == "$want" && $code == "$status" ]]; then echo pass
  else echo "FAIL $who $name: expected '$want', exit $status; got '$got', exit $code"; fi
}

judge() { # judge "NAME<TAB>V1<TAB>V2"
  local name v1 v2
  IFS=$'\t' read -r name v1 v2 <<<"$1"
  compare V1 "$name" "$v1" bash "$root/schemas/verifier/verify.sh"
  compare V2 "$name" "$v2" "$tmp/v2"
}
export -f compare judge

{
  "$tmp/corpus" -out "$tmp/fresh"
  if diff -rq "$tmp/fresh" "$vectors" >&2; then echo pass; else echo "FAIL the corpus in the repository is not what its program makes"; fi
  "$tmp/corpus" -list "$vectors/cases.json" | tr '\n' '\0' |
    xargs -0 -n 1 -P "${CHECK_JOBS:-$(nproc)}" bash -c 'judge "$0"'
} >"$tmp/results"

grep '^FAIL' "$tmp/results" || true
count() { grep -c "^$1" "$tmp/results" || true; }
echo "$(count pass) passed, $(count FAIL) failed, $(count skip) not applicable"
[[ $(count FAIL) == 0 ]]
