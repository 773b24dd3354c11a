//! S3 and Azure Blob: clients, and what concerns a bucket as a whole, which the crate `object_store` leaves to
//! others.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpRequestBody, HttpResponse, HttpService,
    ReqwestConnector,
};
use object_store::path::Path;
use object_store::signer::{Method, Url};
use object_store::{BackoffConfig, ClientOptions, HeaderValue, ObjectStore, RetryConfig};
use secrecy::{ExposeSecret, SecretString};

use super::failure::{Failure, NOT_IMPLEMENTED};
use super::timing::{TIMEOUT, within};
use crate::config::SpaceConnection;
use crate::{Error, Result};

/// A client of one bucket and what is needed beside it.
pub(super) struct Cloud {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) signer: CloudSigner,
    pub(super) bucket: Bucket,
    pub(super) endpoint: String,
    pub(super) secrets: Vec<SecretString>,
}

/// The longest that S3 signs a URL for.
#[cfg(feature = "s3")]
const MAX_TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Makes presigned URLs.
pub(super) enum CloudSigner {
    #[cfg(feature = "s3")]
    S3(Arc<object_store::aws::AmazonS3>, Ahead),
    #[cfg(feature = "azure")]
    Azure(super::sas::Sas, Ahead),
}

impl CloudSigner {
    /// A URL that lets its bearer GET the object at `path`.
    pub(super) async fn sign(&self, path: &Path, ttl: Duration) -> Result<Url, Failure> {
        match self {
            #[cfg(feature = "s3")]
            Self::S3(store, ahead) => {
                // A URL lives from the time it is signed at, by our clock: what that is behind comes on top.
                let behind = Duration::from_secs(u64::try_from(ahead.seconds()).unwrap_or(0));
                let ttl = (ttl + behind).min(MAX_TTL);
                Ok(object_store::signer::Signer::signed_url(store.as_ref(), Method::GET, path, ttl).await?)
            }
            #[cfg(feature = "azure")]
            Self::Azure(sas, ahead) => sas.sign(path.as_ref(), ttl, ahead.seconds()),
        }
    }
}

/// A connection pool that any number of buckets share: requests are signed one by one, so it holds no
/// credentials.
pub(super) fn http_client() -> Result<HttpClient> {
    crate::crypto::install_crypto_provider();
    ReqwestConnector::default()
        .connect(&client_options())
        .map_err(|error| Error::storage(format!("cannot make an HTTP client: {error}")))
}

/// Whole requests have no deadline here: the store gives each one that fits its size.
fn client_options() -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(true)
        .with_connect_timeout(Duration::from_secs(3))
        .with_timeout_disabled()
}

/// Few enough retries that a storage that is down is reported in seconds; what matters longer is tried again
/// by the caller.
fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(1),
            base: 2.0,
        },
        max_retries: 4,
        retry_timeout: Duration::from_secs(5),
    }
}

#[derive(Debug)]
struct Shared(HttpClient);

impl HttpConnector for Shared {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.0.clone())
    }
}

/// By how much a storage's clock is ahead of ours, in seconds, as its last answer tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Ahead(Arc<AtomicI64>);

impl Ahead {
    /// Less is the time that answers travel, and the seconds they are rounded to.
    const NOTHING: i64 = 5;

    pub(super) fn seconds(&self) -> i64 {
        let ahead = self.0.load(Ordering::Relaxed);
        if ahead.abs() <= Self::NOTHING { 0 } else { ahead }
    }

    fn learn(&self, date: &str) {
        if let Ok(theirs) = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date) {
            self.0.store(theirs.as_second() - jiff::Timestamp::now().as_second(), Ordering::Relaxed);
        }
    }
}

/// Looks at the dates of answers, and sees to it that what a storage cannot do is not asked for again: the
/// client repeats whatever begins with a 5.
#[derive(Debug)]
struct Answers {
    inner: HttpClient,
    ahead: Ahead,
}

impl Answers {
    fn over(inner: HttpClient, ahead: &Ahead) -> HttpClient {
        HttpClient::new(Self { inner, ahead: ahead.clone() })
    }
}

#[async_trait]
impl HttpService for Answers {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let mut answer = self.inner.execute(request).await?;
        if answer.status().as_u16() == 501
            && let Ok(status) = NOT_IMPLEMENTED.try_into()
        {
            *answer.status_mut() = status;
        }
        if let Some(date) = answer.headers().get("date").and_then(|date| date.to_str().ok()) {
            self.ahead.learn(date);
        }
        Ok(answer)
    }
}

/// One bucket as a whole.
pub(super) struct Bucket {
    http: HttpClient,
    url: Url,
    body: String,
    credentials: Credentials,
}

enum Credentials {
    #[cfg(feature = "s3")]
    S3 { credential: object_store::aws::AwsCredential, region: String },
    #[cfg(feature = "azure")]
    Azure { credential: object_store::azure::AzureCredential, account: String },
}

impl Bucket {
    /// Whether it is there.
    pub(super) async fn exists(&self) -> Result<bool, Failure> {
        let (status, said) = self.ask(Method::HEAD, "").await?;
        match status {
            200..300 => Ok(true),
            404 => Ok(false),
            _ => Err(Failure::answered(status, &said)),
        }
    }

    /// Creates the bucket; one that is there already is fine.
    pub(super) async fn create(&self) -> Result<(), Failure> {
        match self.create_once().await {
            // Of two that create it at the same time some storages tell one that they failed.
            Err(failure) if failure.is_passing() => self.create_once().await,
            created => created,
        }
    }

    async fn create_once(&self) -> Result<(), Failure> {
        match self.create_with(&self.body).await {
            // Such as a storage that knows no regions.
            Err(failure) if !self.body.is_empty() && failure.is_bad_request() => self.create_with("").await,
            created => created,
        }
    }

    async fn create_with(&self, body: &str) -> Result<(), Failure> {
        let (status, said) = self.ask(Method::PUT, body).await?;
        let failure = match status {
            200..300 => return Ok(()),
            _ => Failure::answered(status, &said),
        };
        if failure.is_created_already() { Ok(()) } else { Err(failure) }
    }

    /// Sends one request about the bucket; the status of the answer, and what it says.
    async fn ask(&self, method: Method, body: &str) -> Result<(u16, String), Failure> {
        let mut request = HttpRequest::new(HttpRequestBody::from(body.to_owned()));
        *request.method_mut() = method;
        *request.uri_mut() = self.url.as_str().parse().map_err(Failure::unusable)?;
        match &self.credentials {
            #[cfg(feature = "s3")]
            Credentials::S3 { credential, region } => {
                object_store::aws::AwsAuthorizer::new(credential, "s3", region)
                    .try_authorize(&mut request, None)?;
            }
            #[cfg(feature = "azure")]
            Credentials::Azure { credential, account } => {
                object_store::azure::AzureAuthorizer::new(credential, account).try_authorize(&mut request)?;
            }
        }
        request.headers_mut().insert("content-length", HeaderValue::from(body.len()));
        within(TIMEOUT, async {
            let failed = |source| object_store::Error::Generic { store: "bucket", source: Box::new(source) };
            let response = self.http.execute(request).await.map_err(failed)?;
            let status = response.status().as_u16();
            let said = response.into_body().bytes().await.map_err(failed)?;
            Ok((status, String::from_utf8_lossy(&said).into_owned()))
        })
        .await
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

/// Bucket `bucket` of an S3 compatible storage.
#[cfg(feature = "s3")]
pub(super) fn s3(connection: &SpaceConnection, bucket: &str, http: HttpClient) -> Result<Cloud> {
    use object_store::aws::{AmazonS3Builder, AwsCredential, S3ConditionalPut};

    let access_key = header_safe("access key", connection.access_key.expose_secret())?;
    let secret_key = connection.secret_key.expose_secret();
    let region =
        header_safe("region", if connection.region.is_empty() { "us-east-1" } else { &connection.region })?;
    let endpoint = endpoint(&connection.endpoint, || format!("https://s3.{region}.amazonaws.com"))?;
    let mut root = endpoint.clone();
    // A name cannot be put before an address.
    let path_style = connection.force_path_style || endpoint.host_str().is_none_or(is_address);
    if path_style {
        append(&mut root, bucket);
    } else {
        let host = format!("{bucket}.{}", endpoint.host_str().unwrap_or_default());
        root.set_host(Some(&host)).map_err(|_| {
            Error::validation(format!("the bucket name `{bucket}` cannot be part of a host name"))
        })?;
    }
    let served = if path_style { &endpoint } else { &root };
    let ahead = Ahead::default();
    let http = Answers::over(http, &ahead);
    let store = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region)
        .with_access_key_id(access_key)
        .with_secret_access_key(secret_key)
        .with_endpoint(served.as_str().trim_end_matches('/'))
        .with_virtual_hosted_style_request(!path_style)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // We remove one object at a time, and not every server has the bulk request.
        .with_disable_bulk_delete(true)
        .with_retry(retries())
        .with_client_options(client_options())
        .with_http_connector(Shared(http.clone()))
        .build()
        .map_err(|error| {
            Error::validation(format!("the S3 connection to {endpoint} is not usable: {error}"))
        })?;
    let store = Arc::new(store);
    // Amazon, and others like it, want the region of a new bucket in the body, but not their first one.
    let body = if region != "us-east-1" {
        format!(
            "<CreateBucketConfiguration><LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
        )
    } else {
        String::new()
    };
    let credential =
        AwsCredential { key_id: access_key.to_owned(), secret_key: secret_key.to_owned(), token: None };
    Ok(Cloud {
        signer: CloudSigner::S3(Arc::clone(&store), ahead),
        store,
        bucket: Bucket {
            http,
            url: root,
            body,
            credentials: Credentials::S3 { credential, region: region.to_owned() },
        },
        endpoint: endpoint.to_string(),
        secrets: vec![connection.access_key.clone(), connection.secret_key.clone()],
    })
}

/// Container `bucket` of an Azure Blob account.
#[cfg(feature = "azure")]
pub(super) fn azure(connection: &SpaceConnection, bucket: &str, http: HttpClient) -> Result<Cloud> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use object_store::azure::{AzureAccessKey, AzureCredential, MicrosoftAzureBuilder};

    use super::sas::Sas;

    let account = header_safe("account name", connection.access_key.expose_secret())?;
    let key = connection.secret_key.expose_secret();
    let no_base64 = || Error::validation("the Azure account key is not base64");
    let decoded = STANDARD.decode(key).map_err(|_| no_base64())?;
    let credential = AzureAccessKey::try_new(key).map_err(|_| no_base64())?;
    let endpoint = endpoint(&connection.endpoint, || format!("https://{account}.blob.core.windows.net"))?;
    let ahead = Ahead::default();
    let http = Answers::over(http, &ahead);
    let store = MicrosoftAzureBuilder::new()
        .with_account(account)
        .with_access_key(key)
        .with_container_name(bucket)
        .with_endpoint(endpoint.as_str().trim_end_matches('/').to_owned())
        .with_retry(retries())
        .with_client_options(client_options())
        .with_http_connector(Shared(http.clone()))
        .build()
        .map_err(|_| Error::validation(format!("the Azure connection to {endpoint} is not usable")))?;
    let mut container = endpoint.clone();
    append(&mut container, bucket);
    let mut url = container.clone();
    url.set_query(Some("restype=container"));
    Ok(Cloud {
        signer: CloudSigner::Azure(
            Sas { container, account: account.to_owned(), name: bucket.to_owned(), key: decoded.into() },
            ahead,
        ),
        store: Arc::new(store),
        bucket: Bucket {
            http,
            url,
            body: String::new(),
            credentials: Credentials::Azure {
                credential: AzureCredential::AccessKey(credential),
                account: account.to_owned(),
            },
        },
        endpoint: endpoint.to_string(),
        secrets: vec![connection.secret_key.clone()],
    })
}

/// The endpoint as a URL that can be shown: credentials have a place of their own.
fn endpoint(text: &str, default: impl FnOnce() -> String) -> Result<Url> {
    let text = text.trim();
    let full = match text {
        "" => default(),
        _ if text.contains("://") => text.to_owned(),
        _ => format!("https://{text}"),
    };
    let url = Url::parse(&full).map_err(|_| {
        Error::validation("the endpoint is not a URL such as https://nyc3.digitaloceanspaces.com")
    })?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(Error::validation("the endpoint must be an http or https URL with a host"));
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(Error::validation(
            "the endpoint must be a plain URL; credentials belong into `accessKey` and `secretKey`",
        ));
    }
    Ok(url)
}

fn append(url: &mut Url, segment: &str) {
    // Only URLs without a host have no path, and `endpoint` refused those.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().push(segment);
    }
}

#[cfg(feature = "s3")]
fn is_address(host: &str) -> bool {
    host == "localhost" || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok()
}

/// It becomes part of a header, where anything else would make the client panic.
fn header_safe<'a>(what: &str, value: &'a str) -> Result<&'a str> {
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::validation(format!(
            "the {what} is empty or holds a space, a control or a non-ASCII character"
        )));
    }
    Ok(value)
}
