#!/bin/bash
# The function with which an AWS endpoint is tried. It answers with its AWS_ENDPOINT_URL, and with those of BROKERS
# (host:port, separated by spaces) that it cannot connect to. Bash is all it needs: every image for custom runtimes has
# it.

api=/dev/tcp/${AWS_LAMBDA_RUNTIME_API/://}
invocation=/2018-06-01/runtime/invocation

while exec 3<>"$api"; do
  printf 'GET %s/next HTTP/1.1\r\nHost: runtime\r\nConnection: close\r\n\r\n' "$invocation" >&3
  while IFS= read -r line <&3 && line=${line%$'\r'} && [ -n "$line" ]; do
    [[ ${line,,} == lambda-runtime-aws-request-id:* ]] && request=${line#*: }
  done
  exec 3>&-
  echo "this line is for the logs"

  unreachable=
  for broker in $BROKERS; do
    timeout 2 bash -c "exec 4<>/dev/tcp/${broker%:*}/${broker##*:}" 2>/dev/null || unreachable+="$broker "
  done
  answer="{\"statusCode\":200,\"body\":\"endpoint=$AWS_ENDPOINT_URL unreachable=$unreachable\"}"
  exec 3<>"$api" || exit 1
  printf 'POST %s/%s/response HTTP/1.1\r\nHost: runtime\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s' \
    "$invocation" "$request" "${#answer}" "$answer" >&3
  cat <&3 >/dev/null
  exec 3>&-
done
