//! AWS's `credentials` and `config` files.
//!
//! Sans-IO.

use crate::security::Secret;

/// Returns the settings of one profile in a file; later sections of the name add to earlier ones.
/// `None` if the file has no section of that name.
pub(super) fn profile(text: &str, name: &str) -> Option<Vec<(String, Secret)>> {
    let mut settings = None;
    let mut inside = false;
    for line in text.lines() {
        if let Some(section) = line.trim().strip_prefix('[').and_then(|line| line.split(']').next()) {
            // Sections of the file `config` are called `[profile name]`, but `[default]`.
            let section = section.trim();
            inside = section == name || section.strip_prefix("profile").is_some_and(|rest| rest.trim() == name);
            if inside {
                settings.get_or_insert_with(Vec::new);
            }
            continue;
        }
        let is_setting = inside && !line.starts_with([' ', '\t', '#', ';']);
        if let Some((key, value)) = line.split_once('=').filter(|_| is_setting)
            && let Some(settings) = &mut settings
        {
            settings.push((key.trim().to_ascii_lowercase(), Secret::from(value.trim())));
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_only_keys_of_named_section() {
        let text = "# a comment\n[default]\naws_access_key_id = A\n[profile dev]\n\
                    AWS_SECRET_ACCESS_KEY=b=c\ns3 =\n  nested = 1\n#x=y\n[other]\naws_access_key_id=O\n";
        let dev = profile(text, "dev").unwrap();
        let names: Vec<_> = dev.iter().map(|(name, value)| (name.as_str(), value.expose_str().unwrap())).collect();
        assert_eq!(names, [("aws_secret_access_key", "b=c"), ("s3", "")]);
        assert_eq!(profile(text, "default").unwrap().len(), 1);
        assert!(profile(text, "none").is_none());
    }
}
