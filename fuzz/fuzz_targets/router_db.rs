#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mikrotik_backup_fuzz::router_db(input));
