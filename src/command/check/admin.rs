//! Whether the admin server can listen.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use serde::Deserialize;

use super::{Finding, State};
use crate::checkpoint::FileStore;
use crate::config::{CheckpointConfig, Config};

/// How long another admin server may take to answer, and how much of that is read.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
const LARGEST_STATUS: usize = 16 << 20;

/// Where it cannot listen, `run` does not start. That a trailcast listens there is no fault if it is the one that runs with this
/// config.
pub(super) async fn admin(config: &Config) -> Option<Finding> {
    let address = config.admin.listen;
    let error = TcpListener::bind(address).err()?;
    let part = "admin.listen".to_owned();
    let (state, message) = if error.kind() != ErrorKind::AddrInUse {
        (State::Failed, format!("cannot listen on {address}: {error}; the address must be one of this machine's"))
    } else if runs_there(address).await.is_some_and(|streams| streams.iter().eq(config.streams.keys())) {
        match &config.checkpoint {
            // Whoever runs with this config holds its checkpoint.
            CheckpointConfig::File { path } if !FileStore::is_held(path) => (
                State::Failed,
                format!(
                    "{address} is in use by a trailcast with streams of these names and another checkpoint, and `run` would \
                     not start: give this one another address and port, or end the other"
                ),
            ),
            _ => (
                State::Warning,
                format!("{address} is in use, by a trailcast with these streams: as it should be while it runs"),
            ),
        }
    } else {
        let message = format!(
            "{address} is in use by something else, and `run` would not start: give trailcast another address and port, or end \
             what listens there"
        );
        (State::Failed, message)
    };
    Some(Finding { part, state, message })
}

/// The streams of the trailcast that answers there, if one does.
async fn runs_there(address: SocketAddr) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Status {
        streams: Vec<Stream>,
    }
    #[derive(Deserialize)]
    struct Stream {
        name: String,
    }
    let client = reqwest::Client::builder().no_proxy().timeout(ANSWERS_WITHIN).build().ok()?;
    let request = client.get(format!("http://{address}/status")).header("accept", "application/json");
    let mut answer = request.send().await.ok()?;
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.ok()? {
        if body.len() + part.len() > LARGEST_STATUS {
            return None;
        }
        body.extend_from_slice(&part);
    }
    let status: Status = serde_json::from_slice(&body).ok()?;
    Some(status.streams.into_iter().map(|stream| stream.name).collect())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;
    use crate::source::install_tls_provider;

    /// What answers there, byte after byte and without an end, is not waited for.
    #[tokio::test]
    async fn what_listens_there_is_not_waited_for_without_end() {
        install_tls_provider();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let trickle = tokio::task::spawn_blocking(move || {
            let (mut connection, _) = listener.accept().unwrap();
            assert!(connection.read(&mut [0; 1024]).unwrap() > 0, "it is asked");
            connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            let mut sent = 0;
            while connection.write_all(b" ").is_ok() {
                sent += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            sent
        });
        let streams = tokio::time::timeout(Duration::from_secs(60), runs_there(address)).await;
        assert_eq!(streams.expect("it is given up"), None);
        assert!(trickle.await.unwrap() > 10, "it went on until then");
    }
}
