#!/usr/bin/env bash
# Cargo calls rustc through this. What is ours, and what parses for us, is built with its doors open and, where COUNTERS
# is set, with LLVM's coverage counters: plain codegen options, no nightly toolchain. Everything else is built as it is,
# which is most of the time that a build takes.
case " $* " in
*" --crate-name lazaret_host "* | *" --crate-name agent_runner "* | *" --crate-name ipc_schema "* | *" --crate-name fuzz "*)
    exec "$@" --cfg fuzzing ${COUNTERS:-} ;;
*" --crate-name guided "* | *" --crate-name pulldown_cmark "* | *" --crate-name serde_json "* | *" --crate-name toml_parser "* | *" --crate-name tar "*)
    exec "$@" ${COUNTERS:-} ;;
*) exec "$@" ;;
esac
