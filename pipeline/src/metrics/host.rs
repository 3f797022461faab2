//! What a process needs of its machine: room on its disks, certificates that hold.

use std::path::PathBuf;

use prometheus::{GaugeVec, Opts, core::Collector, proto::MetricFamily};
use rustix::fs::statvfs;
use url::Url;

use crate::{
    certificates::{Certificate, Certificates},
    config::Config,
};

/// Where a process writes, and which certificates it uses.
#[derive(Clone, Debug, Default)]
pub struct Host {
    folders: Vec<(&'static str, PathBuf)>,
    certificates: Certificates,
}

impl Host {
    /// What a configuration names. An object store isn't a disk of this machine.
    pub fn of(config: &Config) -> Host {
        let exports = config.exports.as_ref().map(|exports| &exports.url);
        let folder = |url: &Url| (url.scheme() == "file").then(|| url.to_file_path().ok())?;
        let places = [("lake", Some(&config.lake.url)), ("exports", exports)];
        let folders = places.into_iter().filter_map(|(place, url)| Some((place, folder(url?)?)));
        Host { folders: folders.collect(), certificates: config.certificates.clone() }
    }

    #[cfg(test)]
    pub(super) fn sample() -> Host {
        let one = Certificate { used_for: "http".into(), file: "http.pem".into(), ends_s: 1 };
        Host { folders: vec![("lake", "/".into())], certificates: vec![one].into() }
    }

    /// The families, with those certificates too.
    pub(super) fn families<'a>(
        &'a self,
        more: impl Iterator<Item = &'a Certificate>,
    ) -> prometheus::Result<Vec<MetricFamily>> {
        let help = "Bytes that are free on the file system of a folder that is written to.";
        let free = GaugeVec::new(Opts::new("aion_disk_free_bytes", help), &["place"])?;
        let help = "Bytes of the whole file system.";
        let size = GaugeVec::new(Opts::new("aion_disk_size_bytes", help), &["place"])?;
        for (place, folder) in &self.folders {
            // One that isn't there yet has nothing to tell.
            let Ok(found) = statvfs(folder) else { continue };
            let bytes = |blocks: u64| blocks as f64 * found.f_frsize as f64;
            free.with_label_values(&[*place]).set(bytes(found.f_bavail));
            size.with_label_values(&[*place]).set(bytes(found.f_blocks));
        }
        let help =
            "From when on a certificate that is shown or trusted is of no use; as it was read.";
        let opts = Opts::new("aion_certificate_expiry_timestamp_seconds", help);
        let ends = GaugeVec::new(opts, &["used_for", "file"])?;
        for one in self.certificates.iter().chain(more) {
            let file = one.file.display().to_string();
            ends.with_label_values(&[&*one.used_for, &file]).set(one.ends_s as f64);
        }
        Ok([free.collect(), size.collect(), ends.collect()].concat())
    }
}
