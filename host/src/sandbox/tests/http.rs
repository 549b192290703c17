//! `wasi:http`: what an instance may hold, and what is behind it. Servers are called in `tests/gateway/http`.

use sluicegate_core::http::HttpGrant;
use sluicegate_core::message::Output;
use sluicegate_guests::Guest;
use sluicegate_guests::http::{Asker, Then};

use super::*;
use crate::sandbox::Pool;

/// Nobody listens there.
const NOBODY: &str = "127.0.0.1:1";

fn granted(component: &[u8], limits: Limits) -> Arc<Generation> {
    let http = vec![HttpGrant::parse(&format!("http://{NOBODY}")).expect("a server")];
    let grants = Grants { http, ..Grants::default() };
    Arc::new(sandbox().compile(component, IndexMap::new(), limits, &grants, "asker", 1).expect("it compiles"))
}

fn many() -> Limits {
    // Hundreds of requests one after another, while other tests want the processor.
    let mut limits = Limits { call_timeout: Duration::from_secs(120), host_calls: 100_000, ..limits() };
    limits.http.requests = 1_000;
    limits
}

/// What it answers where nobody listens.
#[track_caller]
fn answer(pool: &Pool, generation: &Arc<Generation>, asker: Asker) -> Result<String, String> {
    let payload = Asker { authority: NOBODY.to_owned(), ..asker }.message().into();
    let message = Message { payload, ..message("") };
    let answer = run(pool.handle(generation, &message)).map_err(|fault| fault.to_string())?;
    let Ok([Output::Job(job)]) = answer.as_deref() else { panic!("one job, not {answer:?}") };
    Ok(String::from_utf8_lossy(&job.payload).into_owned())
}

#[test]
fn what_it_drops_is_gone_and_what_it_keeps_is_bounded() {
    let (pool, generation) = (Pool::new(), granted(&Asker::handler(), many()));
    let tidy = Asker { times: 600, patience: Some(10_000), ..Asker::default() };
    assert_eq!(answer(&pool, &generation, tidy), Ok(Asker::failed(6)));
    let hoard = || answer(&pool, &generation, Asker { times: 100, then: Then::Forget, ..Asker::default() });
    assert!(hoard().is_ok() && hoard().is_ok());
    // The instance goes with all that it kept; the next one begins anew.
    let full = hoard().expect_err("more than it may hold");
    assert!(full.contains("table"), "{full}");
    assert!(hoard().is_ok());
}

#[test]
fn there_is_nobody_while_a_build_is_only_tried() {
    let generation = granted(&Asker::handler(), many());
    assert_eq!(answer(&Pool::uncounted(), &generation, Asker::default()), Ok(Asker::failed(38)));
    assert_eq!(answer(&Pool::new(), &generation, Asker::default()), Ok(Asker::failed(6)));
}

#[test]
fn host_calls_are_counted_there_too() {
    let limits = Limits { host_calls: 100, ..many() };
    let asker = Asker { times: 900, ..Asker::default() };
    let over = answer(&Pool::new(), &granted(&Asker::handler(), limits), asker).expect_err("too many");
    assert!(over.contains("more than 100 host calls"), "{over}");
}

#[test]
fn what_does_not_import_it_has_none_of_it() {
    assert!(granted(&Guest::echo().handler(), limits()).http.is_none());
}
