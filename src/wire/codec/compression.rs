use std::{fmt, str::FromStr};

use super::feature_off;
use crate::error::{Error, ErrorKind, Result};

/// The compression of a batch's records (`compression.type`).
///
/// It is parsed from Kafka's names, with a level after a colon if the codec has levels: `"none"`,
/// `"gzip"`, `"gzip:6"`, `"snappy"`, `"lz4"`, `"zstd"`, `"zstd:3"`. Without a level, gzip has
/// Java's default, −1, and zstd has 1. At level 1, batches of JSON records took 94 to 105 % of the
/// bytes, and 50 to 90 % of the time, of the C library at Java's default level, 3. Text and machine
/// code take up to 9 % more bytes, most of which level 3 saves.
///
/// The properties for the levels (KIP-390) are `compression.gzip.level` and
/// `compression.zstd.level`; `compression.lz4.level` may only be 9, Java's default, which stands
/// for the fast compressor in Java too. librdkafka's `compression.level` is the level of the codec
/// in use, unless that codec's own property is set; −1 is the codec's default. snappy, lz4 and none
/// have no levels and accept only −1 and 0. A level that is not supported is refused
/// (`Configuration`), with the supported ones.
///
/// ```
/// use ottla::Compression;
/// assert_eq!("zstd:3".parse::<Compression>()?, Compression::Zstd(3));
/// assert_eq!("gzip".parse::<Compression>()?, Compression::Gzip(-1));
/// # Ok::<(), ottla::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Records are not compressed.
    #[default]
    None,
    /// gzip, level 1 to 9, or −1: the codec's default, 6. Level 0, no compression, is refused.
    /// Needs the feature `gzip`.
    Gzip(i32),
    /// Snappy; needs the feature `snappy`.
    Snappy,
    /// LZ4, at its one level: the fast one. Needs the feature `lz4`.
    Lz4,
    /// Zstandard, level −7 (the fastest) to 4; 0 stands for the default, 1; −1 is a level of its
    /// own. The higher levels of other clients are refused. Needs the feature `zstd`.
    Zstd(i32),
}

/// A codec without its level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Codec {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Java's default for `compression.gzip.level`: the codec's own.
const GZIP_DEFAULT: i32 = -1;
/// The level that compresses records to the same size as Java's default, 3, does in C.
const ZSTD_DEFAULT: i32 = 1;
/// Java's default for `compression.lz4.level`. It stands for the fast compressor, the only one
/// here.
const LZ4_DEFAULT: i32 = 9;
const GZIP_ALLOWED: &str = "1 to 9, or -1 for the codec's default";
const ZSTD_ALLOWED: &str = "-7 to 4";
const LZ4_ALLOWED: &str = "9, Java's default, which is the fast compressor";
const NO_LEVELS: &str = "-1 or 0, because it has no levels here";

impl Codec {
    pub(super) fn of_id(id: u8) -> Option<Self> {
        Some(match id {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            _ => return None,
        })
    }

    fn is_built_in(self) -> bool {
        match self {
            Self::None => true,
            Self::Gzip => cfg!(feature = "gzip"),
            Self::Snappy => cfg!(feature = "snappy"),
            Self::Lz4 => cfg!(feature = "lz4"),
            Self::Zstd => cfg!(feature = "zstd"),
        }
    }

    /// Returns this codec at that level, or at its default level.
    fn at(self, level: Option<i32>) -> Compression {
        match self {
            Self::None => Compression::None,
            Self::Gzip => Compression::Gzip(level.unwrap_or(GZIP_DEFAULT)),
            Self::Snappy => Compression::Snappy,
            Self::Lz4 => Compression::Lz4,
            Self::Zstd => Compression::Zstd(level.unwrap_or(ZSTD_DEFAULT)),
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "none" => Self::None,
            "gzip" => Self::Gzip,
            "snappy" => Self::Snappy,
            "lz4" => Self::Lz4,
            "zstd" => Self::Zstd,
            _ => return None,
        })
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

impl Compression {
    /// Returns the codec's number in the lowest three bits of a batch's attributes.
    pub(crate) const fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip(_) => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd(_) => 4,
        }
    }

    /// Returns the codec, without its level.
    pub(super) fn codec(self) -> Codec {
        match self {
            Self::None => Codec::None,
            Self::Gzip(_) => Codec::Gzip,
            Self::Snappy => Codec::Snappy,
            Self::Lz4 => Codec::Lz4,
            Self::Zstd(_) => Codec::Zstd,
        }
    }

    /// Checks that the codec is built in and that its level is supported.
    pub(super) fn check(self) -> Result<()> {
        let (level, allowed, fits) = match self {
            Self::Gzip(level) => (level, GZIP_ALLOWED, level == GZIP_DEFAULT || (1..=9).contains(&level)),
            Self::Zstd(level) => (level, ZSTD_ALLOWED, (-7..=4).contains(&level)),
            Self::None | Self::Snappy | Self::Lz4 => (0, "", true),
        };
        let codec = self.codec();
        if !codec.is_built_in() {
            return Err(feature_off(codec, ErrorKind::Configuration));
        }
        if !fits {
            return Err(not_to_be_had(codec, level, &format!("compression.{codec}.level"), allowed));
        }
        Ok(())
    }
}

fn not_to_be_had(codec: Codec, level: i32, property: &str, allowed: &str) -> Error {
    let message = format!("compression level {level} of {codec} ({property}) is not supported; allowed: {allowed}");
    Error::new(ErrorKind::Configuration, message)
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gzip(level) if *level != GZIP_DEFAULT => write!(f, "gzip:{level}"),
            Self::Zstd(level) if *level != ZSTD_DEFAULT => write!(f, "zstd:{level}"),
            other => other.codec().fmt(f),
        }
    }
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level)),
            None => (text, None),
        };
        let unknown = || {
            Error::new(
                ErrorKind::Configuration,
                format!(
                    "compression \"{text}\": allowed are none, gzip, snappy, lz4 and zstd; gzip and zstd also with a level, as gzip:6"
                ),
            )
        };
        let codec = Codec::parse(name).ok_or_else(unknown)?;
        let level = match level {
            None => None,
            Some(level) if matches!(codec, Codec::Gzip | Codec::Zstd) => Some(level.parse().map_err(|_| unknown())?),
            Some(_) => return Err(unknown()),
        };
        let compression = codec.at(level);
        compression.check()?;
        Ok(compression)
    }
}

/// The properties about compression, which may be set in any order; [`resolve`](Self::resolve)
/// combines them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CompressionSettings {
    /// `compression.type`.
    pub(crate) codec: Codec,
    /// `compression.gzip.level`.
    pub(crate) gzip_level: Option<i32>,
    /// `compression.lz4.level`: LZ4 has one level for writing.
    pub(crate) lz4_level: Option<i32>,
    /// `compression.zstd.level`.
    pub(crate) zstd_level: Option<i32>,
    /// librdkafka's `compression.level`: the level of the codec, if the codec's own level is not
    /// set; −1 stands for the default.
    pub(crate) level: Option<i32>,
}

impl CompressionSettings {
    /// Sets `compression.type`; the level comes from its own property.
    pub(crate) fn set_codec(&mut self, name: &str) -> Option<()> {
        self.codec = Codec::parse(name.trim())?;
        Some(())
    }

    /// Returns the codec at its level. Refuses a codec that is not built in and a level that is not
    /// supported.
    pub(crate) fn resolve(&self) -> Result<Compression> {
        let own = match self.codec {
            Codec::Gzip => self.gzip_level,
            Codec::Lz4 => self.lz4_level,
            Codec::Zstd => self.zstd_level,
            Codec::None | Codec::Snappy => None,
        };
        let general = self.level.filter(|level| own.is_none() && *level != -1);
        if matches!(self.codec, Codec::None | Codec::Snappy | Codec::Lz4) {
            if let Some(level) = own.filter(|level| *level != LZ4_DEFAULT) {
                return Err(not_to_be_had(self.codec, level, "compression.lz4.level", LZ4_ALLOWED));
            }
            if let Some(level) = general.filter(|level| *level != 0) {
                return Err(not_to_be_had(self.codec, level, "compression.level", NO_LEVELS));
            }
        }
        let compression = self.codec.at(own.or(general));
        compression.check()?;
        Ok(compression)
    }
}

impl From<Compression> for CompressionSettings {
    fn from(compression: Compression) -> Self {
        let mut settings = Self { codec: compression.codec(), ..Self::default() };
        match compression {
            Compression::Gzip(level) => settings.gzip_level = Some(level),
            Compression::Zstd(level) => settings.zstd_level = Some(level),
            Compression::None | Compression::Snappy | Compression::Lz4 => {}
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsed_names_display_unchanged() {
        for text in ["none", "gzip", "gzip:6", "snappy", "lz4", "zstd", "zstd:-7", "zstd:3", "zstd:4"] {
            assert_eq!(text.parse::<Compression>().unwrap().to_string(), text);
        }
        assert_eq!("zstd".parse::<Compression>().unwrap(), Compression::Zstd(1));
    }

    #[test]
    fn error_names_codec_and_allowed_levels() {
        let error = "zstd:12".parse::<Compression>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("compression.zstd.level"), "{error}");
        assert!(error.to_string().contains("-7 to 4"), "{error}");
        assert!("gzip:0".parse::<Compression>().unwrap_err().to_string().contains("1 to 9"));
        for text in ["", "brotli", "snappy:1", "lz4:", "gzip:x", "zstd:99999999999999"] {
            assert!(text.parse::<Compression>().unwrap_err().to_string().contains("allowed are none"), "{text}");
        }
    }

    #[test]
    fn maps_codec_ids_both_ways() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            assert_eq!(Codec::of_id(codec.at(None).id()), Some(codec));
        }
        assert_eq!(Codec::of_id(5), None);
    }

    #[test]
    fn properties_resolve_in_any_order() {
        let mut settings = CompressionSettings { zstd_level: Some(1), level: Some(2), ..Default::default() };
        settings.set_codec("zstd").unwrap();
        assert_eq!(settings.resolve().unwrap(), Compression::Zstd(1));
        settings.set_codec("gzip").unwrap();
        assert_eq!(settings.resolve().unwrap(), Compression::Gzip(2));
        settings.level = Some(-1);
        assert_eq!(settings.resolve().unwrap(), Compression::Gzip(-1));
        settings.level = Some(12);
        assert_eq!(settings.resolve().unwrap_err().kind(), ErrorKind::Configuration);
        assert!(settings.set_codec("gzap").is_none());
        let zstd = CompressionSettings::from(Compression::Zstd(-5));
        assert_eq!(zstd.resolve().unwrap(), Compression::Zstd(-5));
    }

    #[test]
    #[cfg(all(feature = "lz4", feature = "snappy"))]
    fn codecs_without_levels_reject_other_levels() {
        for codec in [Codec::None, Codec::Snappy, Codec::Lz4] {
            for level in [None, Some(-1), Some(0)] {
                let settings = CompressionSettings { codec, level, ..Default::default() };
                assert_eq!(settings.resolve().unwrap(), codec.at(None), "{level:?}");
            }
            for level in [-2, 1, 9, 12] {
                let settings = CompressionSettings { codec, level: Some(level), ..Default::default() };
                let error = settings.resolve().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Configuration);
                let expected = format!("compression level {level} of {codec} (compression.level)");
                assert!(error.to_string().contains(&expected), "{error}");
                assert!(error.to_string().contains("-1 or 0"), "{error}");
            }
        }
        let lz4 = |lz4_level, level| {
            CompressionSettings { codec: Codec::Lz4, lz4_level: Some(lz4_level), level, ..Default::default() }.resolve()
        };
        assert_eq!(lz4(9, None).unwrap(), Compression::Lz4);
        assert_eq!(lz4(9, Some(3)).unwrap(), Compression::Lz4, "the codec's own property decides");
        for level in [-1, 0, 1, 8, 10, 17] {
            let error = lz4(level, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains(&format!("level {level} of lz4 (compression.lz4.level)")), "{error}");
            assert!(error.to_string().contains("allowed: 9"), "{error}");
        }
        let other = CompressionSettings { codec: Codec::Snappy, lz4_level: Some(12), ..Default::default() };
        assert_eq!(
            other.resolve().unwrap(),
            Compression::Snappy,
            "as in Java, the level of a codec not in use is ignored"
        );
    }

    #[test]
    #[cfg(all(feature = "gzip", feature = "zstd"))]
    fn levels_zero_and_minus_one_follow_codec() {
        let general = |codec, level| CompressionSettings { codec, level: Some(level), ..Default::default() }.resolve();
        assert_eq!(general(Codec::Gzip, -1).unwrap(), Compression::Gzip(-1));
        assert!(general(Codec::Gzip, 0).is_err());
        assert_eq!(general(Codec::Zstd, -1).unwrap(), Compression::Zstd(1), "librdkafka's value for the default");
        assert_eq!(general(Codec::Zstd, 0).unwrap(), Compression::Zstd(0));
        let zstd = CompressionSettings { codec: Codec::Zstd, zstd_level: Some(-1), ..Default::default() };
        assert_eq!(zstd.resolve().unwrap(), Compression::Zstd(-1), "a level of its own");
    }
}
