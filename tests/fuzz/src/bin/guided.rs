//! Runs one fuzz target under libFuzzer. libFuzzer parses the whole command line, so the environment variable `TARGET`
//! names the target.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<fuzz::Target> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    TARGET.get_or_init(|| {
        let name = std::env::var("TARGET").unwrap_or_default();
        fuzz::target(&name).unwrap_or_else(|| panic!("there is no target {name:?}"))
    })(data);
});
