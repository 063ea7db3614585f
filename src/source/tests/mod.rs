//! The clients against servers on real sockets, well-behaved and not.

mod genauth;
mod scloud;
mod server;
mod transport;

use std::time::Duration;

use url::Url;

use super::*;
use crate::config::{
    GenauthAuth, GenauthBrand, GenauthConfig, GenauthFilter, ScloudConfig, ScloudFilter, Secret, Start,
};
use crate::memory::Budget;
use crate::page::Position;

fn stream(source: SourceConfig) -> StreamConfig {
    StreamConfig {
        source,
        start: Start::Now,
        poll_interval: Duration::from_secs(10),
        settle: Duration::ZERO,
        overlap: Duration::from_secs(10),
        sweeps: Vec::new(),
        concurrency: 4,
        rate_limit: 1000.0,
        sinks: Vec::new(),
        connect_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(10),
        max_response_size: 1 << 20,
        ca_file: None,
        allow_http: false,
    }
}

fn genauth(endpoint: &Url) -> GenauthConfig {
    GenauthConfig {
        endpoint: endpoint.clone(),
        brand: GenauthBrand::Genauth,
        user_pool_id: "65f0a1".to_owned(),
        auth: GenauthAuth::Token,
        access_key_id: "AK".to_owned(),
        access_key_secret: Secret::Inline("hush".into()),
        filter: GenauthFilter::default(),
        max_rows: 10_000,
    }
}

fn scloud(endpoint: &Url) -> ScloudConfig {
    ScloudConfig {
        endpoint: endpoint.clone(),
        public_key: "PUB".to_owned(),
        private_key: Secret::Inline("hush".into()),
        project_id: Some("org-1".to_owned()),
        filter: ScloudFilter::default(),
        max_rows: 10_000,
    }
}

fn limiter() -> Limiter {
    Limiter::new(1000.0, 8)
}

fn memory() -> Arc<Share> {
    Budget::new(128 << 20, 64 << 20, 1).share()
}

fn client(config: &StreamConfig) -> Client {
    install_tls_provider();
    Client::build("s", config, limiter(), memory(), &mut Connections::default()).expect("builds")
}

fn scloud_client(endpoint: &Url) -> Client {
    client(&stream(SourceConfig::Scloud(scloud(endpoint))))
}

fn genauth_client(endpoint: &Url) -> Client {
    client(&stream(SourceConfig::Genauth(genauth(endpoint))))
}

fn request(position: Position) -> PageRequest {
    PageRequest { from: 1_700_000_000_000, to: 1_700_000_060_000, limit: 50, position }
}

async fn first(client: &Client) -> Result<Page, FetchError> {
    client.fetch(&request(Position::First), client.rank(Priority::Live)).await.map(|fetched| fetched.page)
}

fn raws(page: &Page) -> Vec<&str> {
    page.records.iter().map(|record| std::str::from_utf8(&record.raw).expect("UTF-8")).collect()
}
