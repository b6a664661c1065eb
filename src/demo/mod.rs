//! placeholder
pub mod cluster;
pub mod compare;
pub mod keeper;
pub mod server;
#[derive(Debug, thiserror::Error)] pub enum DemoError { #[error("x")] X }
#[derive(Default, Debug)] pub struct DemoOptions { pub keep: bool, pub seconds: Option<u64> }
pub async fn run(_: DemoOptions)->Result<(),DemoError>{ Ok(()) }
