//! One target under libFuzzer, which wants the whole command line: the target's name is in `TARGET`.

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
