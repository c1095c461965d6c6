# The dozen commands. `just` alone lists them; each calls what CI calls, so `just` itself is optional.

# List the commands
default:
    @just --list

# Build, run, notarize a file, verify it, leave the server running
quickstart file="README.md":
    scripts/quickstart.sh {{file}}

# Every check that a change must pass
test:
    scripts/test.sh

# The same, with the long fault and memory runs
test-long:
    scripts/test.sh --long

# Install what building needs from Debian's packages
setup:
    scripts/setup.sh test

# Tests of one package, such as `just unit ledger-core`
unit package *args:
    cargo test --locked --package {{package}} {{args}}

# Journeys and faults against the built binary
e2e:
    cargo build --locked --package chopmark
    cargo test --locked --package chopmark-tests

# Format everything
fmt:
    cargo fmt --all

# Lints, warnings refused
lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Licences, sources and bans of dependencies
deny:
    scripts/deny.sh

# Image, Compose file and chart, without Docker and without a cluster (needs Go)
deploy:
    scripts/check-deploy.sh

# The shell verifier and the Go verifier over the corpus of receipts (needs Go)
corpus:
    tests/corpus/check.sh

# Write generated files anew: OpenAPI document and error pages (the vectors are not among them, on purpose)
generate:
    UPDATE=1 cargo test --locked --package chopmark-gateway --test it openapi
    UPDATE=1 cargo test --locked --package chopmark-api --test pages

# Run a network on this machine, in the foreground
dev data="chopmark-data":
    cargo run --locked --package chopmark -- dev --data {{data}}

# Push load at a running network, such as `just load .run/data --scenario batch --seconds 60`
load data *args:
    cargo run --locked --release --package chopmark-loadtest -- --dev {{data}} {{args}}
