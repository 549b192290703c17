#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluicegate_hostile::laws::command(bytes));
