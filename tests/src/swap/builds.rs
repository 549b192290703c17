//! Builds of one plugin, each of which writes its number into the payload of every message, which it is given twice:
//! `{"first":"0000","second":"0000",…`.

use std::fmt::Write as _;

use sluicegate_guests::{Guest, ONE_JOB};

/// Where the numbers stand in a payload, of the first call and of the second.
const PLACES: [u32; 2] = [10, 26];
/// As many as make a component of 100 KB.
const FUNCTIONS: u32 = 393;

/// What is wrong with a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Its second half is missing.
    Torn,
    /// Its sample is not what it does.
    Lies,
    /// Its first call traps.
    Traps,
}

impl Broken {
    /// Each kind.
    pub const ALL: [Self; 3] = [Self::Torn, Self::Lies, Self::Traps];
}

/// A build of 100 KB with this number, below 10,000.
///
/// # Panics
/// Never: it is WebAssembly.
#[must_use]
pub fn build(number: u32) -> Vec<u8> {
    guest(number, "").handler()
}

/// A build that must never be live.
///
/// # Panics
/// Never: it is WebAssembly.
#[must_use]
pub fn broken(number: u32, how: Broken) -> Vec<u8> {
    match how {
        Broken::Torn => {
            let mut whole = build(number);
            whole.truncate(whole.len() / 2);
            whole
        }
        Broken::Lies => {
            let mut guest = guest(number, "");
            guest.samples = Some(sample(number + 1));
            guest.handler()
        }
        Broken::Traps => guest(number, "unreachable").handler(),
    }
}

fn guest(number: u32, first: &str) -> Guest {
    let digits = u32::from_le_bytes(format!("{number:04}").into_bytes().try_into().expect("four digits"));
    let nobody = u32::from_le_bytes(*b"0000");
    let [one, two] = PLACES.map(|place| format!("(i32.add (local.get 4) (i32.const {place}))"));
    let mut guest = Guest::doing(&format!(
        "{first}
         (i32.store align=1
           (select {one} {two} (i32.eq (i32.load align=1 {one}) (i32.const {nobody})))
           (i32.const {digits}))
         (local.set $at (local.get 4)) (local.set $len (local.get 5)) {ONE_JOB}"
    ));
    guest.samples = Some(sample(number));
    guest.extra = (0..FUNCTIONS).map(|place| function(place, number)).collect();
    guest
}

fn sample(number: u32) -> String {
    let payload = |number| format!(r#"{{\"first\":\"{number:04}\",\"second\":\"0000\",\"seq\":1}}"#);
    format!(
        r#"[{{"name":"one","message":{{"topic":"t","payload":"{}"}},"expect":{{"jobs":[{{"payload":"{}"}}]}}}}]"#,
        payload(0),
        payload(number)
    )
}

/// What compilers have to do with: a loop, a branch, memory, arithmetic. Another in each build, so that nothing was compiled before.
fn function(place: u32, number: u32) -> String {
    let mut steps = String::new();
    for step in 0..8 {
        let constant = place * 64 + step * 7 + number;
        write!(
            steps,
            "(if (i32.gt_u (local.get 2) (i32.const {constant})) (then
               (i32.store (i32.and (local.get 0) (i32.const 65528)) (i32.xor (local.get 2) (i32.const {step})))))"
        )
        .expect("a text takes what is written to it");
    }
    format!(
        "(func (param i32 i32) (result i32) (local i32)
           (loop $again
             (local.set 2 (i32.add (i32.mul (local.get 2) (i32.const 31)) (i32.load8_u (i32.and (local.get 0) (i32.const 65535)))))
             {steps}
             (local.set 0 (i32.add (local.get 0) (i32.const 1)))
             (br_if $again (i32.lt_u (local.get 0) (local.get 1))))
           (local.get 2))"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_of_100_kilobytes() {
        let bytes = build(7).len();
        assert!((95_000..105_000).contains(&bytes), "{bytes}");
    }
}
