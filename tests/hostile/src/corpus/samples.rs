//! Samples that lie.
/// TODO
pub(super) const ECHOED: &str =
    r#"[{"name":"one","message":{"topic":"t","payload":"{ }"},"expect":{"jobs":[{"payload":"{ }"}]}}]"#;
