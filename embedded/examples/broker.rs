//! Runs the embedded broker for clients of other processes, until it is stopped:
//! `broker DATA [ADDRESS [always|never]]`. Prints the address once it listens.

use std::error::Error;

use aion_embedded::{Broker, Fsync, Settings};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut arguments = std::env::args().skip(1);
    let data = arguments.next().ok_or("usage: broker DATA [ADDRESS [always|never]]")?;
    let mut settings = Settings::new(data);
    if let Some(address) = arguments.next() {
        settings.listen = address.parse()?;
    }
    if arguments.next().as_deref() == Some("never") {
        settings.fsync = Fsync::Never;
    }
    let broker = Broker::start(settings).await?;
    println!("{}", broker.address());
    tokio::signal::ctrl_c().await?;
    broker.stop().await?;
    Ok(())
}
