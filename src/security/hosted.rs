//! The usual settings of hosted Kafka services, by builder and by properties. Replace the words in
//! capitals with your own values.
//!
//! All of them have certificates of public certificate authorities unless stated otherwise, so that
//! `Tls::new()` is enough. `Producer::from_properties`, the other `from_properties` functions and
//! `kat -X` take the properties.
//!
//! # Confluent Cloud
//! An API key of the cluster and its secret, by PLAIN.
//! ```no_run
//! use ottla::{
//!     Producer,
//!     security::{Sasl, Security, Tls},
//! };
//!
//! # async fn example() -> ottla::Result<()> {
//! let security = Security::sasl_ssl(Sasl::plain("API_KEY", "API_SECRET"), Tls::new());
//! let producer = Producer::builder("pkc-NUMBER.REGION.aws.confluent.cloud:9092")
//!     .security(security)
//!     .build()
//!     .await?;
//! # Ok(()) }
//! ```
//! ```text
//! security.protocol=SASL_SSL
//! sasl.mechanism=PLAIN
//! sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
//!     username="API_KEY" password="API_SECRET";
//! ```
//! With an identity provider of your own, and the cluster and identity pool as extensions:
//! ```no_run
//! use ottla::security::{OauthBearer, Oidc, Sasl, Security, Tls};
//!
//! # fn example() -> ottla::Result<Security> {
//! let tokens =
//!     Oidc::client_credentials("https://IDP/oauth2/token", "CLIENT_ID", "CLIENT_SECRET")?
//!         .scope("SCOPE");
//! let sasl = OauthBearer::new(tokens)
//!     .extension("logicalCluster", "lkc-ID")
//!     .extension("identityPoolId", "pool-ID");
//! let security = Security::sasl_ssl(Sasl::mechanism(sasl), Tls::new());
//! # Ok(security) }
//! ```
//! ```text
//! security.protocol=SASL_SSL
//! sasl.mechanism=OAUTHBEARER
//! sasl.oauthbearer.token.endpoint.url=https://IDP/oauth2/token
//! sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
//!     clientId="CLIENT_ID" clientSecret="CLIENT_SECRET" scope="SCOPE" \
//!     extension_logicalCluster="lkc-ID" extension_identityPoolId="pool-ID";
//! ```
//!
//! # Amazon MSK
//! With IAM (port 9098, also for serverless clusters): the client finds credentials like AWS's own
//! tools, and takes the region from the host name.
//! ```no_run
//! use ottla::{
//!     Producer,
//!     security::{Sasl, Security, Tls},
//! };
//!
//! # async fn example() -> ottla::Result<()> {
//! let security = Security::sasl_ssl(Sasl::aws_msk_iam(), Tls::new());
//! let producer = Producer::builder("b-1.NAME.ID.c2.kafka.eu-west-1.amazonaws.com:9098")
//!     .security(security)
//!     .build()
//!     .await?;
//! # Ok(()) }
//! ```
//! ```text
//! security.protocol=SASL_SSL
//! sasl.mechanism=AWS_MSK_IAM
//! sasl.jaas.config=software.amazon.msk.auth.iam.IAMLoginModule required;
//! sasl.client.callback.handler.class=software.amazon.msk.auth.iam.IAMClientCallbackHandler
//! ```
//! With a user in AWS Secrets Manager (port 9096): SCRAM-SHA-512.
//! ```text
//! security.protocol=SASL_SSL
//! sasl.mechanism=SCRAM-SHA-512
//! sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \
//!     username="USER" password="PASSWORD";
//! ```
//! With client certificates (port 9094): `Security::ssl` and
//! [`Tls::client_certificate_files`](super::Tls::client_certificate_files).
//!
//! # Azure Event Hubs
//! The user name is `$ConnectionString`, and the password is the namespace's connection string.
//! ```no_run
//! use ottla::{Producer, security::{Sasl, Security, Tls}};
//!
//! # async fn example() -> ottla::Result<()> {
//! let connection_string = "Endpoint=sb://NAMESPACE.servicebus.windows.net/;\
//!     SharedAccessKeyName=…;SharedAccessKey=…";
//! let sasl = Sasl::plain("$ConnectionString", connection_string);
//! let security = Security::sasl_ssl(sasl, Tls::new());
//! let producer = Producer::builder("NAMESPACE.servicebus.windows.net:9093")
//!     .security(security)
//!     .idempotence(false) // in tiers that have no producer ids
//!     .build()
//!     .await?;
//! # Ok(()) }
//! ```
//! ```text
//! security.protocol=SASL_SSL
//! sasl.mechanism=PLAIN
//! sasl.username=$ConnectionString
//! sasl.password=Endpoint=sb://NAMESPACE.servicebus.windows.net/;\
//!     SharedAccessKeyName=…;SharedAccessKey=…
//! ```
//! With Entra ID: OAUTHBEARER, the endpoint
//! `https://login.microsoftonline.com/TENANT/oauth2/v2.0/token`, and the scope
//! `https://NAMESPACE.servicebus.windows.net/.default`.
//!
//! # Redpanda Cloud
//! A user of the cluster, by SCRAM-SHA-256 (or SCRAM-SHA-512, if the user was created with it).
//! ```no_run
//! use ottla::{
//!     Producer,
//!     security::{Sasl, Security, Tls},
//! };
//!
//! # async fn example() -> ottla::Result<()> {
//! let security = Security::sasl_ssl(Sasl::scram_sha_256("USER", "PASSWORD"), Tls::new());
//! let producer = Producer::builder("seed-ID.CLUSTER.fmc.prd.cloud.redpanda.com:9092")
//!     .security(security)
//!     .build()
//!     .await?;
//! # Ok(()) }
//! ```
//! ```text
//! security.protocol=SASL_SSL
//! sasl.mechanism=SCRAM-SHA-256
//! sasl.username=USER
//! sasl.password=PASSWORD
//! ```
//!
//! # Aiven
//! The project has its own certificate authority (`ca.pem`). Clients authenticate with a client
//! certificate (`service.cert`, `service.key`), or with SASL on another port with the same
//! authority.
//! ```no_run
//! use ottla::{
//!     Producer,
//!     security::{Sasl, Security, Tls},
//! };
//!
//! # async fn example() -> ottla::Result<()> {
//! let tls = Tls::new()
//!     .ca_file("ca.pem")
//!     .client_certificate_files("service.cert", "service.key");
//! let producer = Producer::builder("NAME-PROJECT.aivencloud.com:12345")
//!     .security(Security::ssl(tls))
//!     .build()
//!     .await?;
//!
//! let sasl = Sasl::scram_sha_256("avnadmin", "PASSWORD");
//! let security = Security::sasl_ssl(sasl, Tls::new().ca_file("ca.pem"));
//! let producer = Producer::builder("NAME-PROJECT.aivencloud.com:12346")
//!     .security(security)
//!     .build()
//!     .await?;
//! # Ok(()) }
//! ```
//! ```text
//! security.protocol=SSL
//! ssl.ca.location=ca.pem
//! ssl.certificate.location=service.cert
//! ssl.key.location=service.key
//! ```
