use std::sync::Arc;

use super::*;
use crate::{Error, ErrorKind, net::Tcp};

fn resolved(pairs: &[(&'static str, &str)]) -> Result<Security> {
    let mut properties = SecurityProperties::default();
    for (name, value) in pairs {
        properties.set(name, value);
    }
    let network: Arc<dyn Network> = Arc::new(Tcp);
    properties.resolve(&network)
}

fn refused(pairs: &[(&'static str, &str)]) -> Error {
    let error = resolved(pairs).map(|security| format!("{security:?}")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(!error.to_string().contains("hunter2"), "{error}");
    error
}

/// Returns the name of the mechanism and the `Debug` output of the security, for `name` and further
/// properties.
fn mechanism(name: &str, more: &[(&'static str, &str)]) -> Result<String> {
    let mut pairs = vec![("security.protocol", "sasl_plaintext"), ("sasl.mechanism", name)];
    pairs.extend_from_slice(more);
    let security = resolved(&pairs)?;
    let shown = format!("{security:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    Ok(format!("{} {shown}", security.sasl.as_ref().map_or("none", |sasl| sasl.name())))
}

const JAAS_PLAIN: &str =
    r#"org.apache.kafka.common.security.plain.PlainLoginModule required username="alice" password="hunter2";"#;
const JAAS_SCRAM: &str =
    r#"org.apache.kafka.common.security.scram.ScramLoginModule required username="alice" password="hunter2";"#;

#[test]
fn defaults_to_plaintext_without_sasl() {
    assert!(resolved(&[]).unwrap().sasl.is_none());
    assert!(resolved(&[("security.protocol", "PLAINTEXT"), ("sasl.password", "x")]).unwrap().sasl.is_none());
}

#[test]
fn reads_credentials_from_java_or_librdkafka_names() {
    for (name, jaas) in [("PLAIN", JAAS_PLAIN), ("SCRAM-SHA-256", JAAS_SCRAM), ("scram-sha-512", JAAS_SCRAM)] {
        let shown = mechanism(name, &[("sasl.jaas.config", jaas)]).unwrap();
        assert!(shown.starts_with(&name.to_ascii_uppercase()) && !shown.contains("alice"), "{shown}");
        let shown = mechanism(name, &[("sasl.username", "alice"), ("sasl.password", "hunter2")]).unwrap();
        assert!(shown.starts_with(&name.to_ascii_uppercase()) && !shown.contains("alice"), "{shown}");
    }
    assert!(mechanism("AWS_MSK_IAM", &[]).unwrap().starts_with("AWS_MSK_IAM"));
    let jaas = r#"software.amazon.msk.auth.iam.IAMLoginModule required awsProfileName="dev";"#;
    assert!(mechanism("AWS_MSK_IAM", &[("sasl.jaas.config", jaas)]).unwrap().starts_with("AWS_MSK_IAM"));
}

#[cfg(not(all(feature = "oauth", feature = "aws-msk-iam")))]
#[test]
fn error_names_feature_of_mechanism() {
    for (name, feature, built_in) in [
        ("OAUTHBEARER", "`oauth`", cfg!(feature = "oauth")),
        ("AWS_MSK_IAM", "`aws-msk-iam`", cfg!(feature = "aws-msk-iam")),
    ] {
        if !built_in {
            let error = refused(&[("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", name)]);
            assert!(error.to_string().contains(name) && error.to_string().contains(feature), "{error}");
        }
    }
}

#[test]
fn error_names_missing_or_conflicting_property() {
    let sasl = ("security.protocol", "SASL_PLAINTEXT");
    for (pairs, part) in [
        (&[("sasl.password", "hunter2")][..], "`security.protocol` is not"),
        (&[("security.protocol", "TLS")], "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"),
        (&[sasl], "`sasl.mechanism` is missing"),
        (&[sasl, ("sasl.mechanism", "GSSAPI")], "not built in"),
        (&[sasl, ("sasl.mechanism", "DIGEST-MD5")], "allowed: PLAIN"),
        (&[sasl, ("sasl.mechanism", "PLAIN")], "needs credentials"),
        (&[sasl, ("sasl.mechanism", "PLAIN"), ("sasl.username", "a")], "without `sasl.password`"),
        (&[sasl, ("sasl.mechanism", "PLAIN"), ("sasl.password", "hunter2")], "without `sasl.username`"),
        (&[sasl, ("sasl.mechanism", "PLAIN"), ("sasl.jaas.config", JAAS_SCRAM)], "needs PlainLoginModule"),
        (&[sasl, ("sasl.mechanism", "PLAIN"), ("sasl.jaas.config", "x password=hunter2")], "required"),
        (
            &[sasl, ("sasl.mechanism", "PLAIN"), ("sasl.jaas.config", "PlainLoginModule required user=hunter2;")],
            "option 1 is not known",
        ),
        (
            &[sasl, ("sasl.mechanism", "PLAIN"), ("sasl.jaas.config", JAAS_PLAIN), ("sasl.username", "b")],
            "set one of them",
        ),
        (&[sasl, ("sasl.mechanism", "OAUTHBEARER")], "needs tokens"),
        (
            &[sasl, ("sasl.mechanism", "OAUTHBEARER"), ("sasl.login.callback.handler.class", "com.example.Mine")],
            "class of the JVM",
        ),
    ] {
        let error = refused(pairs).to_string();
        assert!(error.contains(part), "{pairs:?}: {error}");
    }
    let mut properties = SecurityProperties::default();
    properties.give(Security::plaintext());
    properties.set("sasl.password", "hunter2");
    let network: Arc<dyn Network> = Arc::new(Tcp);
    assert!(properties.resolve(&network).unwrap_err().to_string().contains("beside a `Security`"));
}

#[test]
fn properties_select_source_of_oauth_tokens() {
    let oauth = |more: &[(&'static str, &str)]| mechanism("OAUTHBEARER", more);
    let endpoint = ("sasl.oauthbearer.token.endpoint.url", "http://localhost:1/token");
    let java = r#"org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required clientId="me" clientSecret="hunter2" scope="s" extension_logicalCluster="lkc-1";"#;
    let shown = oauth(&[endpoint, ("sasl.jaas.config", java)]).unwrap();
    assert!(shown.contains("Oidc") && !shown.contains("\"me\""), "{shown}");
    let client = ("sasl.oauthbearer.client.credentials.client.id", "me");
    let secret = ("sasl.oauthbearer.client.credentials.client.secret", "hunter2");
    assert!(oauth(&[endpoint, client, secret]).unwrap().contains("Oidc"));
    let file = ("sasl.oauthbearer.token.endpoint.url", "file:///var/run/token");
    assert!(oauth(&[file]).unwrap().contains("\"/var/run/token\""));
    let unsecured = r#"OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="alice" unsecuredLoginListClaim_scope="|a|b" unsecuredLoginNumberClaim_n="1";"#;
    assert!(oauth(&[("sasl.jaas.config", unsecured)]).unwrap().contains("UnsecuredToken"));
    let librdkafka = [
        ("enable.sasl.oauthbearer.unsecure.jwt", "true"),
        ("sasl.oauthbearer.config", "principal=alice scope=a,b lifeSeconds=60"),
    ];
    assert!(oauth(&librdkafka).unwrap().contains("UnsecuredToken"));

    for (more, part) in [
        (&[endpoint][..], "client.credentials.client.id` is missing"),
        (&[endpoint, client], "client.credentials.client.secret` is missing"),
        (&[("sasl.oauthbearer.token.endpoint.url", "idp"), client, secret], "https://"),
        (&[endpoint, ("sasl.oauthbearer.jwt.retriever.class", "x.Mine")], "JwtBearerJwtRetriever"),
        (&[endpoint, ("sasl.oauthbearer.grant.type", "password")], "client_credentials"),
        (&[endpoint, client, secret, ("sasl.login.refresh.window.factor", "2")], "0.5 to 1"),
        (&[endpoint, client, secret, ("sasl.login.read.timeout.ms", "0")], "1 or more"),
        (&[endpoint, client, secret, ("sasl.oauthbearer.extensions", "x")], "name=value"),
        (&[librdkafka[0], ("sasl.oauthbearer.config", "scope=hunter2")], "principal"),
        (&[("sasl.jaas.config", r#"OAuthBearerLoginModule required unsecuredLoginLifetimeSeconds="1";"#)], "principal"),
    ] {
        let error = oauth(more).unwrap_err();
        assert!(error.to_string().contains(part), "{more:?}: {error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
#[cfg(feature = "tls")]
fn jwt_bearer_grant_requires_key_or_assertion() {
    let with = |more: &[(&'static str, &str)]| {
        let mut pairs = vec![("sasl.oauthbearer.token.endpoint.url", "https://idp.example/token")];
        pairs.extend_from_slice(more);
        mechanism("OAUTHBEARER", &pairs)
    };
    let key = ("sasl.oauthbearer.assertion.private.key.file", "/key.pem");
    let passphrase = ("sasl.oauthbearer.assertion.private.key.passphrase", "hunter2");
    let class = ("sasl.oauthbearer.jwt.retriever.class", "org.apache.kafka.x.JwtBearerJwtRetriever");
    let shown = with(&[class, key, passphrase, ("sasl.oauthbearer.assertion.algorithm", "es256")]).unwrap();
    assert!(shown.contains("grant: JwtBearer") && shown.contains("Es256"), "{shown}");
    let grant = ("sasl.oauthbearer.grant.type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
    assert!(with(&[grant, ("sasl.oauthbearer.assertion.file", "/a.jwt")]).unwrap().contains("grant: JwtBearer"));
    for (more, part) in [
        (&[class][..], "private.key.file` is missing"),
        (&[class, ("sasl.oauthbearer.grant.type", "client_credentials")], "different grants"),
        (&[key, ("sasl.oauthbearer.assertion.algorithm", "HS256")], "RS256 or ES256"),
        (&[key, ("sasl.oauthbearer.assertion.claim.exp.seconds", "86401")], "0 to 86400"),
        (&[key, ("sasl.oauthbearer.assertion.claim.nbf.seconds", "3601")], "0 to 3600"),
        (&[("sasl.oauthbearer.assertion.claim.iss", "me")], "private.key.file` is missing"),
    ] {
        let error = with(more).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

/// Returns the names of the properties and options without effect.
fn unused(pairs: &[(&'static str, &str)]) -> Vec<String> {
    let mut properties = SecurityProperties::default();
    for (name, value) in pairs {
        properties.set(name, value);
    }
    let network: Arc<dyn Network> = Arc::new(Tcp);
    properties.resolve_all(&network).unwrap().1
}

#[test]
#[cfg(feature = "tls")]
fn assertion_takes_precedence_over_client_secret() {
    const BASE: [(&str, &str); 3] = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.token.endpoint.url", "https://idp.example/token"),
    ];
    let key = ("sasl.oauthbearer.assertion.private.key.file", "/key.pem");
    let file = ("sasl.oauthbearer.assertion.file", "/a.jwt");
    let issuer = ("sasl.oauthbearer.assertion.claim.iss", "me");
    let id = ("sasl.oauthbearer.client.credentials.client.id", "me");
    let secret = ("sasl.oauthbearer.client.credentials.client.secret", "hunter2");
    let default = ("sasl.oauthbearer.jwt.retriever.class", "x.DefaultJwtRetriever");
    let class = ("sasl.oauthbearer.jwt.retriever.class", "x.ClientCredentialsJwtRetriever");
    let grant = ("sasl.oauthbearer.grant.type", "client_credentials");
    // Java's order: a file with an assertion, an assertion that is signed here, the secret. A
    // property after the one that is used has no effect.
    for (more, part, without) in [
        (&[key][..], "Signed", &[][..]),
        (&[default, key, issuer], "Signed", &[]),
        (&[class, file], "File(\"/a.jwt\")", &[]),
        (&[grant, file, id], "File(\"/a.jwt\")", &[]),
        (&[file, key, issuer], "File(\"/a.jwt\")", &[issuer.0, key.0]),
        (&[key, issuer, id, secret], "Signed", &[secret.0]),
        (&[key, id, secret], "Oidc", &[key.0]),
        (&[id, secret], "Oidc", &[]),
    ] {
        let pairs = [&BASE[..], more].concat();
        let shown = format!("{:?}", resolved(&pairs).unwrap());
        assert!(shown.contains(part), "{more:?}: {shown}");
        assert_eq!(shown.contains("grant: ClientCredentials"), part != "Oidc", "{more:?}: {shown}");
        assert_eq!(unused(&pairs), without, "{more:?}");
    }
}

#[test]
fn rejects_conflicting_oauth_methods_and_retrievers() {
    let endpoint = ("sasl.oauthbearer.token.endpoint.url", "https://idp.example/token");
    let file = ("sasl.oauthbearer.token.endpoint.url", "file:/var/run/token");
    let method = |value| ("sasl.oauthbearer.method", value);
    let class = |value| ("sasl.oauthbearer.jwt.retriever.class", value);
    let oauth = |more: &[(&'static str, &str)]| mechanism("OAUTHBEARER", more);
    assert!(oauth(&[file, class("x.FileJwtRetriever")]).unwrap().contains("/var/run/token"));
    for (more, part) in [
        (&[endpoint, method("foo")][..], "default or oidc"),
        (&[method("oidc")], "token.endpoint.url"),
        (&[endpoint, method("default")], "set it to oidc"),
        (&[endpoint, class("x.FileJwtRetriever")], "names none"),
        (&[file, class("x.JwtBearerJwtRetriever")], "names a file"),
        (&[file, class("x.ClientCredentialsJwtRetriever")], "names a file"),
        (&[file, ("sasl.oauthbearer.grant.type", "client_credentials")], "names a file"),
    ] {
        let error = oauth(more).unwrap_err().to_string();
        assert!(error.contains(part), "{more:?}: {error}");
    }
}

#[test]
fn lists_settings_without_effect() {
    let plain = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "alice"),
        ("sasl.password", "hunter2"),
    ];
    assert!(unused(&plain).is_empty());
    let more =
        [("sasl.login.refresh.buffer.seconds", "9"), ("ssl.ca.location", "/ca.pem"), ("sasl.oauthbearer.scope", "")];
    assert_eq!(unused(&[&plain[..], &more].concat()), ["sasl.login.refresh.buffer.seconds", "ssl.ca.location"]);

    let aws = "software.amazon.msk.auth.iam.IAMLoginModule required awsProfileName=\"dev\" awsStsRegion=\"eu-west-1\" \
               awsDebugCreds=\"true\" awsMaxRetries=\"7\" awsMaxBackOffTimeMs=\"500\";";
    let pairs = [("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", "AWS_MSK_IAM"), ("sasl.jaas.config", aws)];
    let of_jaas = |name: &str| format!("{name} of sasl.jaas.config");
    assert_eq!(unused(&pairs), ["awsDebugCreds", "awsMaxRetries", "awsMaxBackOffTimeMs"].map(of_jaas));

    let plain = "PlainLoginModule required username=a password=hunter2 tokenauth=true serviceName=kafka;";
    let pairs = [("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", "PLAIN"), ("sasl.jaas.config", plain)];
    assert_eq!(unused(&pairs), ["tokenauth", "serviceName"].map(of_jaas));

    let oauth = "OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=alice unsecuredLoginScopeClaimName=s \
                 clientSecret=hunter2 ssl.truststore.location=/ca.pem;";
    let pairs =
        [("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", "OAUTHBEARER"), ("sasl.jaas.config", oauth)];
    assert_eq!(unused(&pairs), ["unsecuredLoginScopeClaimName", "clientSecret", "ssl.*"].map(of_jaas));

    for (mechanism_name, jaas, part) in [
        ("AWS_MSK_IAM", "IAMLoginModule required awsRoleArn=x;", "assume a role"),
        ("AWS_MSK_IAM", "IAMLoginModule required awsStsRegion=\"hunter2 x\";", "name of a region"),
        ("SCRAM-SHA-256", "ScramLoginModule required username=a password=b tokenauth=maybe;", "true or false"),
        (
            "OAUTHBEARER",
            "OAuthBearerLoginModule required unsecuredLoginPrincipalClaimName=p \
                         unsecuredLoginStringClaim_sub=a;",
            "no principal",
        ),
    ] {
        let error = mechanism(mechanism_name, &[("sasl.jaas.config", jaas)]).unwrap_err().to_string();
        assert!(error.contains(part), "{jaas}: {error}");
    }
    let handler = ("sasl.client.callback.handler.class", "software.amazon.msk.auth.iam.IAMClientCallbackHandler");
    let error = mechanism("PLAIN", &[handler]).unwrap_err().to_string();
    assert!(error.contains("belongs to the mechanism AWS_MSK_IAM"), "{error}");
}

#[test]
#[cfg(feature = "tls")]
fn jaas_ssl_options_configure_token_endpoint() {
    let with = |options: &str| {
        let jaas = format!("OAuthBearerLoginModule required clientId=a clientSecret=hunter2 {options};");
        let pairs = [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "OAUTHBEARER"),
            ("sasl.oauthbearer.token.endpoint.url", "https://idp.example/token"),
            ("sasl.jaas.config", jaas.as_str()),
        ];
        resolved(&pairs).map(|security| format!("{security:?} {:?}", unused(&pairs)))
    };
    let shown = with("ssl.truststore.location=/ca.pem ssl.protocol=TLSv1.2 ssl.keystore.location=/client.pem").unwrap();
    for part in ["/ca.pem", "Only12", "/client.pem"] {
        assert!(shown.contains(part), "{part} is missing in: {shown}");
    }
    assert!(
        with("ssl.truststore.password=hunter2").unwrap().ends_with("[\"ssl.truststore.password of sasl.jaas.config\"]")
    );
    let error = with("ssl.truststore.location=/ca.jks").unwrap_err().to_string();
    assert!(error.contains("sasl.jaas.config") && error.contains("JKS"), "{error}");
    assert!(with("ssl.crl.location=x").unwrap_err().to_string().contains("not known"));
}

#[test]
#[cfg(feature = "tls")]
fn builds_tls_from_java_or_librdkafka_names() {
    let tls = |more: &[(&'static str, &str)]| {
        let mut pairs = vec![("security.protocol", "ssl")];
        pairs.extend_from_slice(more);
        resolved(&pairs).map(|security| format!("{:?}", security.tls))
    };
    let key_password = ("ssl.key.password", "hunter2");
    for (more, part) in [
        (&[][..], "verification: Full"),
        (&[("ssl.ca.location", "/ca.pem")], "File(\"/ca.pem\")"),
        (&[("ssl.truststore.location", "/ca.pem"), ("ssl.truststore.type", "PEM")], "File(\"/ca.pem\")"),
        (&[("ssl.truststore.certificates", "hunter2")], "Pem(Text((hidden)))"),
        (&[("ssl.certificate.location", "/c"), ("ssl.key.location", "/k"), key_password], "File(\"/k\")"),
        (&[("ssl.keystore.certificate.chain", "c"), ("ssl.keystore.key", "hunter2")], "Text((hidden))"),
        (&[("ssl.keystore.location", "/both.pem")], "key: File(\"/both.pem\")"),
        (&[("ssl.endpoint.identification.algorithm", "")], "WithoutHostName"),
        (&[("enable.ssl.certificate.verification", "false")], "verification: None"),
        (&[("ssl.enabled.protocols", "TLSv1.2")], "Only12"),
        (&[("ssl.protocol", "TLSv1.2"), ("ssl.enabled.protocols", "TLSv1.2,TLSv1.3")], "Only12"),
        (&[("ssl.enabled.protocols", "TLSv1.3")], "Only13"),
    ] {
        let shown = tls(more).unwrap();
        assert!(shown.contains(part) && !shown.contains("hunter2"), "{more:?}: {shown}");
    }
    for (more, part) in [
        (&[("ssl.key.location", "/k")][..], "without its certificate"),
        (&[("ssl.certificate.location", "/c")], "without its key"),
        (
            &[("ssl.certificate.location", "/c"), ("ssl.key.location", "/k"), ("ssl.keystore.location", "/b.pem")],
            "both name a client certificate",
        ),
        (&[("ssl.truststore.location", "/store.jks")], "JKS"),
        (&[("ssl.truststore.location", "/store"), ("ssl.truststore.type", "JKS")], "JKS"),
        (&[("ssl.truststore.location", "/store"), ("ssl.truststore.type", "BKS")], "PEM or PKCS12"),
        (&[("ssl.enabled.protocols", "TLSv1.1")], "TLSv1.3"),
        (&[("ssl.enabled.protocols", "TLSv1.3"), ("ssl.protocol", "TLSv1.2")], "no version"),
        (&[("ssl.endpoint.identification.algorithm", "ldap")], "https"),
        (&[("enable.ssl.certificate.verification", "no")], "true or false"),
    ] {
        let error = tls(more).unwrap_err();
        assert!(error.to_string().contains(part), "{more:?}: {error}");
    }
}
