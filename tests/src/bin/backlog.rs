//! `cargo xtask bench backend` runs this. Its argument: how many transactions for each line of the table.

use std::process::ExitCode;

use sluicegate_tests::backlog::run;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [transactions] = &arguments[..] else {
        eprintln!("error: run it by `cargo xtask bench backend`");
        return ExitCode::FAILURE;
    };
    let Ok(transactions @ 1..) = transactions.parse() else {
        eprintln!("error: `{transactions}` is no number of transactions");
        return ExitCode::FAILURE;
    };
    match run(transactions).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
