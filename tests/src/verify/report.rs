//! What a step says.

/// Why a step is not good.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) expected: String,
    pub(super) seen: String,
    /// Where a person looks next.
    pub(super) look: String,
}

/// All steps.
#[derive(Default)]
pub(super) struct Report {
    failed: usize,
    steps: usize,
}

impl Report {
    /// One step's line, or its four.
    pub(super) fn step(&mut self, name: &str, outcome: Result<String, Wrong>) {
        self.steps += 1;
        match outcome {
            Ok(seen) => println!("ok      {name}: {seen}"),
            Err(Wrong { expected, seen, look }) => {
                self.failed += 1;
                println!("FAILED  {name}");
                println!("        expected  {expected}");
                println!("        seen      {seen}");
                println!("        look at   {look}");
            }
        }
    }

    /// The last line; whether all was good.
    pub(super) fn end(&self) -> bool {
        match self.failed {
            0 => println!("\nverified: all {} steps are good", self.steps),
            failed => println!("\nNOT VERIFIED: {failed} of {} steps failed", self.steps),
        }
        self.failed == 0
    }
}
