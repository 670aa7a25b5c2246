#!/bin/sh
# The first process of a Nitro enclave: it has no network but vsock to its parent, and a loopback that is down.
set -eu
ip link set lo up
mkdir -p /run/enclave-oracle

# In: the parent's worker. On the parent:
#   socat UNIX-LISTEN:enclave.sock,fork,mode=600 VSOCK-CONNECT:16:5000
socat VSOCK-LISTEN:5000,fork,reuseaddr UNIX-CONNECT:/run/enclave-oracle/enclave.sock &

# Out: ciphertext, from http://127.0.0.1:8080 in the worker's `storage`. On the parent, with its own store behind it:
#   socat VSOCK-LISTEN:8080,fork,reuseaddr TCP-CONNECT:127.0.0.1:8080
socat TCP-LISTEN:8080,bind=127.0.0.1,fork,reuseaddr VSOCK-CONNECT:3:8080 &

cd /opt/enclave-oracle
exec python -m enclave_app --config /etc/enclave-oracle/enclave.json --socket /run/enclave-oracle/enclave.sock
