//! Options of the engine.

use base::{ByteSize, section};
use serde::{Deserialize, Serialize};

section! { "engine",
    /// How a store keeps data on disk.
    pub struct EngineConfig {
        /// Memory for blocks of tables that were read. Grows as reads need it. At least 1MiB. Fixed at start.
        pub cache_size: ByteSize = ByteSize::mib(256),
        /// Writes gathered in memory before they become tables. Larger means less rewriting and a longer restart; up to four times
        /// this much memory is used while writes come faster than the disk takes them. From 1MiB to 1GiB.
        /// Fixed at start.
        pub memtable_size: ByteSize = ByteSize::mib(8),
        /// Whether tables are compressed: `lz4`, or `none` for data that is compressed already. Applies to tables
        /// written from now on. Fixed at start.
        pub compression: Compression = Compression::Lz4,
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    None,
    #[default]
    Lz4,
}

impl EngineConfig {
    /// Tells every fault at once, each with the option's name.
    pub fn validate(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.cache_size < ByteSize::mib(1) {
            faults.push(format!("engine.cache-size = {}: wanted at least 1MiB", self.cache_size));
        }
        if !(ByteSize::mib(1)..=ByteSize::gib(1)).contains(&self.memtable_size) {
            faults.push(format!("engine.memtable-size = {}: wanted 1MiB to 1GiB", self.memtable_size));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_faults_are_told_together() {
        assert_eq!(EngineConfig::default().validate(), [] as [String; 0]);
        let bad = EngineConfig {
            cache_size: ByteSize(0),
            memtable_size: ByteSize::gib(2),
            compression: Compression::None,
        };
        assert_eq!(bad.validate().len(), 2);
    }
}
