#!/usr/bin/env bash
# verify.sh FILE entry.json receipt.tlog-proof policy.txt: needs coreutils, sed, grep, OpenSSL >= 3.0; the verdict is the last line.
export LC_ALL=C; (($# == 4)) && [[ -r $1 && $(openssl version) == OpenSSL\ [3-9]* ]] && T=$(mktemp -d) || { sed -n 2p "$0" >&2; exit 64; }
set -uf; end() { echo "$2 $3"; exit "$1"; }; bad() { end 1 INVALID "check=$1"; }; unknown() { end 3 UNKNOWN-FORMAT "what=$1"; }
bin() { basenc --base16 -d <<<"$1"; }; unb64() { basenc --base64 -d <<<"$1"; }; hex() { unb64 "$1" | basenc --base16 -w0; }
sha() { h=$(sha256sum); h=${h::64}; echo "${h^^}"; }; utf8() { ! LC_ALL=C.UTF-8 grep -qaxv '.*' "$1"; }; trap 'rm -r "$T"' EXIT
B='[A-Za-z0-9+/]' HASH="^$B{42}[AEIMQUYcgkosw048]=\$" B64="($B{4})*($B{4}|$B{2}[AEIMQUYcgkosw048]=|$B[AQgw]==)\$" # canonical base64 only
NUM='(0|[1-9][0-9]{0,18})$' ALG='"(sha256|sha3-256|sm3)":' S='"([^"\\[:cntrl:]]|\\["\\/bfnrtu])*"' A="$S|-?(0|[1-9][0-9]*)|true|false"
V="($A)"; for f in 1 2 3; do V="($A|[{]($S:$V(,$S:$V)*)?[}]|[[]($V(,$V)*)?[]])"; done; declare -A K=() N=() G=([_none]=0) M=() # JSON value
get() { local k; k=$(grep -oaE "^[{]($S:$V,)*\"$2\":" <<<"$1") && grep -oaE "^$V" <<<"${1#"$k"}"; }; json() { utf8 "$1" && # sets J
  J=$(sed -zE 's/("([^"\\]|\\.)*")|\s*([][{},:])\s*/\1\3/g' "$1" | grep -axE "[{]($S:$V,)*$S:$V[}]") && [[ $(get "$J" v) == 1 ]]; }
digests() { n=0; for a in sha256 sha3-256 sm3; do [[ $1 =~ \"$a\":([^,}]*) ]] && h=$(openssl dgst -r -$a <"$2") || continue # OBJECT FILE:
  n=1; [[ ${BASH_REMATCH[1]} == "\"${h%% *}\"" ]] || return 1; done; ((n)) || unknown entry-type; } # is each digest in OBJECT FILE's?
vkey() { [[ $2 =~ ^([^+]+)\+(.{8})\+($B{44})$ ]] && n=${BASH_REMATCH[1]} i=${BASH_REMATCH[2]^^} k=$(hex "${BASH_REMATCH[3]}") && id=$n+$i &&
  [[ $k == "$1"* && $({ printf '%s\n' "$n"; bin "$k"; } | sha) == "$i"* && ! ${K[+$k]-} ]] && K[$id]=$k K[+$k]=1 || unknown policy; }
mapfile -t L < <(tr '\0' '\1' <"$3"; printf '\2'); [[ ${L[0]} == c2sp.org/tlog-proof@v1 ]] || unknown receipt # \2: is there a last newline?
p=$(tr '\0' '\1' <"$4" | sed -E 's/[ \t]+/ /g; s/^ | $//g; /^(#|$)/d') o='' Q='' w='[^ [:cntrl:]]+' # o: origin, K: keys, Q: the quorum's
! grep -qvE "^((log|witness $w) $w( $w)?|group $w (any|all|[1-9][0-9]?)( $w)+|quorum $w)\$" <<<"$p" || unknown policy
while read -r w a b c; do m=''; case $w in log) vkey 01 "$a"; [[ ${o:=$n} == "$n" ]] ;; quorum) [[ ! $Q ]] && Q=${G[_$a]-} && [[ $Q ]] ;;
  witness) vkey 04 "$b"; [[ ! ${G[_$a]-} ]] && N[_$a]=$id G[_$a]="1 $id" ;; group) w=($c) b=${b/any/1} b=${b/all/${#w[@]}}; for c in $c; do
    [[ ${N[_$c]-} && "$m " != *" ${N[_$c]} "* ]] && m+=" ${N[_$c]}" || unknown policy; done
    [[ ! ${G[_$a]-} && b -le ${#w[@]} ]] && G[_$a]=$b$m ;; esac || unknown policy; done <<<"$p"; [[ $o && $Q ]] || unknown policy
json "$2" || unknown entry; d=$(get "$J" digests) c=$(get "$J" commitment); [[ $d$c =~ $ALG ]] || unknown entry-type; x='' i=1 P=() p=0
[[ ${L[1]-} =~ ^extra\ $B64 ]] && x=${L[1]#* } i=2; [[ ${L[i]-} =~ ^index\ $NUM ]] && I=${L[i]#* } || bad receipt # P path, C checkpoint
while [[ ${L[++i]-} =~ $HASH ]]; do P+=("${L[i]}"); done; [[ ! ${L[i]-x} && ${L[i + 1]} ]] || bad receipt; C=("${L[@]:i+1}") Z=${C[1]-}
s=$((${#C[@]} - 5)); [[ s -gt 0 && s -lt 65 && ${C[-1]} == $'\2' && ! ${C[3]} && $Z =~ ^$NUM && Z -ge 0 && ${C[2]} =~ $HASH &&
  $(wc -c <"$3") -le 262144 && ${C[*]:0:s+4} != *[$'\1'-$'\37']* ]] && utf8 "$3" || bad checkpoint; log='' forged=''
for l in "${C[@]:4:s}"; do [[ $l =~ ^—\ [^\ +]+\ $B{4}$B64 && $l != *\ ??????== ]] || bad checkpoint; h=$(hex "${l##* }") id=${l#* } t=''
  id=${id% *}+${h:0:8}; k=${K[$id]-}; case ${k:0:2}${#h}${h:8:1} in 01136?) ;; 04152[0-7]) t=$((16#${h:8:16})) ;; 04152?) bad checkpoint ;;
    0*) forged=1 ;; *) continue ;; esac; [[ $t ]] && a=${M[$id]-$t} && M[$id]=$((a < t ? a : t)) || log=1 # M: a cosigner's earliest time
  printf '%s\n' ${t:+cosignature/v1 "time $t"} "${C[@]:0:3}" >"$T/m"; bin "302A300506032B6570032100${k:2}" >"$T/k"; bin "${h: -128}" >"$T/s"
  openssl pkeyutl -verify -rawin -pubin -keyform DER -inkey "$T/k" -in "$T/m" -sigfile "$T/s" &>"$T/o" || forged=1; done
r=$({ printf '\0'; cat "$2"; } | sha); for ((a = I, b = Z - 1; b > 0; a >>= 1, b >>= 1)); do ((a & 1 || a < b)) || continue # r: the root
  h=$(hex "${P[p]-}"); ((p++, a & 1)) && h+=$r || h=$r$h; r=$(bin "01$h" | sha); done; ((I >= 0 && I < Z && p == ${#P[@]})) || bad receipt
[[ ${C[0]} == "$o" ]] || bad origin; [[ $d =~ $ALG ]] || { [[ $x ]] || end 2 INCOMPLETE missing=opening; unb64 "$x" >"$T/o"
  { echo chopmark/commit/v1; cat "$T/o"; } >"$T/m"; digests "$c" "$T/m" && json "$T/o" && d=$(get "$J" digests) || bad opening; }
k=$(get "$J" size) || k=$(wc -c <"$1"); digests "$d" "$1" && [[ $k == "$(wc -c <"$1")" ]] || bad file; [[ ! $forged ]] || bad signature
[[ $r == "$(hex "${C[2]}")" ]] || bad inclusion; [[ $log ]] || end 2 INCOMPLETE missing=log; w=($Q) n=$((${#w[@]} - 1)) # 9**12: no time
t=($(for l in ${w[@]:1}; do echo ${M[$l]-}; done | sort -n)) k=${#t[@]} t=${t[(n-1)/3]-9**12}; ((k >= w)) || end 2 INCOMPLETE missing=quorum
end 0 VALID "index=$I size=$Z cosigners=$k/$n time=$( ((t < 253402300800)) && date -u -d "@$t" +%FT%TZ || echo none)"
