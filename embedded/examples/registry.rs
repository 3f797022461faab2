//! The schema registry as a process of its own: `registry DATA HOST:PORT`. Prints its URL, runs until
//! SIGINT.

use std::{net::SocketAddr, path::PathBuf};

use aion_embedded::Registry;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut args = std::env::args().skip(1);
    let (Some(data), Some(listen)) = (args.next(), args.next()) else {
        return Err("usage: registry DATA HOST:PORT".into());
    };
    let registry = Registry::start(listen.parse::<SocketAddr>()?, PathBuf::from(data)).await?;
    println!("http://{}", registry.address());
    tokio::signal::ctrl_c().await?;
    registry.stop().await;
    Ok(())
}
