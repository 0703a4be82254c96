use std::{collections::BTreeSet, fs, path::PathBuf};

use super::*;

#[test]
fn error_names_missing_processor_feature() {
    assert_eq!(first_missing(&[("aes", true), ("adx", false)]), Err("the processor lacks adx".to_owned()));
    assert_eq!(first_missing(&[("aes", true)]), Ok(()));
}

#[test]
fn ecdsa_suites_of_tls12_allow_ed25519() {
    let provider = built_in().unwrap();
    let twelve = provider.cipher_suites.iter().filter_map(|suite| match suite {
        SupportedCipherSuite::Tls12(suite) => Some(suite.sign),
        SupportedCipherSuite::Tls13(_) => None,
    });
    let (ecdsa, rsa): (Vec<_>, Vec<_>) =
        twelve.partition(|sign| sign.contains(&SignatureScheme::ECDSA_NISTP256_SHA256));
    assert!(!ecdsa.is_empty() && ecdsa.iter().all(|sign| sign.contains(&SignatureScheme::ED25519)));
    assert!(!rsa.is_empty() && rsa.iter().all(|sign| !sign.contains(&SignatureScheme::ED25519)));
    assert!(Arc::ptr_eq(&provider, &built_in().unwrap()), "suites are created once");
}

/// Returns the source of graviola's code for this processor, in the version of the lock file;
/// `None` if it is not in cargo's home.
fn sources() -> Option<Vec<String>> {
    let lock = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).ok()?;
    let version = lock.split("name = \"graviola\"\nversion = \"").nth(1)?.split('"').next()?.to_owned();
    let home =
        std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cargo")))?;
    let registries = fs::read_dir(home.join("registry/src")).ok()?;
    let code = registries
        .filter_map(|registry| {
            Some(registry.ok()?.path().join(format!("graviola-{version}/src/low/{}", std::env::consts::ARCH)))
        })
        .find(|path| path.is_dir())?;
    let files = fs::read_dir(code).ok()?.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok());
    Some(files.collect())
}

/// Returns the quoted words of a text.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}

#[test]
fn checks_every_processor_feature_graviola_uses() {
    let Some(files) = sources() else {
        println!("graviola's sources are not in cargo's home: nothing to compare");
        return;
    };
    assert!(files.len() > 20);
    let needed: BTreeSet<_> = needed().into_iter().map(|(name, _)| name).collect();
    // Features that all processors of the architecture have.
    let always = ["sse", "sse2"];

    // Features that graviola checks itself before it uses them.
    let mut guarded: BTreeSet<&str> = BTreeSet::new();
    for file in &files {
        for token in file.split("cpu_feature_token!(").skip(1) {
            guarded.extend(quoted(token.split(')').next().unwrap()));
        }
        for check in file.split("if have_cpu_feature!(").skip(1) {
            guarded.extend(quoted(check.split(')').next().unwrap()));
        }
    }
    let mut enabled: BTreeSet<&str> = BTreeSet::new();
    for attribute in files.iter().flat_map(|file| file.split("#[target_feature(").skip(1)) {
        enabled.extend(quoted(attribute.split(")]").next().unwrap()).flat_map(|list| list.split(',')));
    }
    assert!(enabled.len() > 2, "{enabled:?}");
    for feature in enabled {
        let known = needed.contains(feature) || guarded.contains(feature) || always.contains(&feature);
        assert!(known, "graviola uses {feature}, which is not checked");
    }

    // Assembly has no such attribute.
    let mut seen = BTreeSet::new();
    for line in files.iter().flat_map(|file| file.lines()) {
        let Some(code) = line.split('"').nth(1) else { continue };
        let Some(mnemonic) = code.split_whitespace().next() else { continue };
        let feature = match mnemonic {
            "mulx" | "rorx" | "pext" | "pdep" | "bzhi" | "sarx" | "shlx" | "shrx" => "bmi2",
            "andn" | "bextr" | "blsi" | "blsr" | "blsmsk" | "tzcnt" => "bmi1",
            "adcx" | "adox" => "adx",
            "popcnt" => "popcnt",
            "lzcnt" => "lzcnt",
            "movbe" => "movbe",
            "pinsrd" | "pinsrq" | "pextrd" | "pextrq" | "pblendw" => "sse4.1",
            "pshufb" | "palignr" => "ssse3",
            "vpshufb" | "vpermq" | "vpaddw" | "vmovdqu" => "avx2",
            "aese" | "aesmc" => "aes",
            "pmull" | "pmull2" => "pmull",
            "sha256h" | "sha256su0" => "sha2",
            "sqrdmlah" | "sqrdmlsh" => "rdm",
            "sdot" | "udot" => "dotprod",
            _ => continue,
        };
        assert!(needed.contains(feature), "graviola's assembly uses {mnemonic} of {feature}, which is not checked");
        seen.insert(feature);
    }
    #[cfg(target_arch = "x86_64")]
    assert!(seen.contains("bmi2") && seen.contains("adx"), "{seen:?}");
}
