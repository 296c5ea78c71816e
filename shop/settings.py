"""Configuration: environment variables, read once. docs/settings.md explains each of them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import environ
from csp.constants import SELF
from django.core.exceptions import ImproperlyConfigured

from payments.banking.account import AccountInvalid
from payments.banking.account import checked as check_account
from payments.sandbox.signing import BadSecret, key_of
from shop.kernel.durations import parse_duration
from shop.kernel.encryption import KeysInvalid, parse_keys
from shop.kernel.engine_tls import TLSInvalid, tls_config

BASE_DIR = Path(__file__).resolve().parent.parent


class _Env(environ.Env):  # type: ignore[misc]  # it has no types
    """Keeps the names that it was asked for: `up` hands their values on to commands that are run beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get_value(self, var: str, *args: Any, **kwargs: Any) -> Any:
        self.names.add(var)
        return super().get_value(var, *args, **kwargs)


env = _Env()

DEBUG: bool = env.bool("DEBUG", default=False)
DATA_DIR = Path(env.str("DATA_DIR", default=str(BASE_DIR / ".data"))).resolve()

PRACTICE_SECRET = "practice-only-secret-key-that-is-public"
SECRET_KEY: str = env.str("SECRET_KEY", default=PRACTICE_SECRET if DEBUG else "")
if not DEBUG and (not SECRET_KEY or SECRET_KEY == PRACTICE_SECRET):
    raise ImproperlyConfigured(
        "SECRET_KEY is not set. With DEBUG off, set it to a long random text that only this site knows."
    )

# Still read after a change of SECRET_KEY: nobody is logged out, and second factors go on.
SECRET_KEY_FALLBACKS: list[str] = env.list("SECRET_KEY_FALLBACKS", default=[])

SITE_URL: str = env.str("SITE_URL", default="http://127.0.0.1:8000").rstrip("/")
ALLOWED_HOSTS: list[str] = env.list("ALLOWED_HOSTS", default=["127.0.0.1", "localhost", "[::1]"])
CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "shop.kernel",
    "payments",
    "orders",
    "shop.apps.ShopConfig",
    "shop.apps.StaffAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.postgres",  # its indexes
    "servestatic.runserver_nostatic",
    "django.contrib.staticfiles",
    "django_otp",
    "shop.apps.LogInsConfig",
    "django_htmx",
    "csp",
    "ninja",
    "pgtrigger",
]

MIDDLEWARE = [
    "shop.health.health",
    "shop.request_log.request_log",
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "shop.language.LanguageMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "shop.urls"
ASGI_APPLICATION = "shop.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# --- storage ---------------------------------------------------------------------------------------------

DATABASES = {
    "default": env.db_url("DATABASE_URL", default="postgresql://vorkasse@127.0.0.1:5432/vorkasse"),
}
DATABASES["default"].setdefault("OPTIONS", {})
# A pool, because both the worker's threads and the requests of ASGI come and go.
DATABASES["default"]["OPTIONS"]["pool"] = {
    "min_size": 0,
    "max_size": env.int("DATABASE_POOL", default=24),
    "timeout": 10,
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- people ----------------------------------------------------------------------------------------------

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LOGIN_URL = "admin:login"
# The first lets nobody in: it refuses who has been wrong too often.
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
# A name from an address: a stranger elsewhere cannot lock a colleague out. Trying while locked out adds nothing.
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_RESET_ON_SUCCESS = True
AXES_CLIENT_IP_CALLABLE = "shop.client_address.client_address"
AXES_SENSITIVE_PARAMETERS = ["username", "ip_address", "csrfmiddlewaretoken"]
AXES_VERBOSE = False
AXES_ENABLE_ADMIN = False  # shop.login_admin shows its rows
# Staff must have a second factor, and can do nothing before they have set one up.
REQUIRE_TOTP: bool = env.bool("REQUIRE_TOTP", default=False)

# --- language and time -----------------------------------------------------------------------------------

# By their own names: people look for theirs in a language that they may not read.
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
# Of whoever has not chosen one: customers whose orders name none, alerts, what is written down by itself.
LANGUAGE_CODE: str = env.str("LANGUAGE_CODE", default="en")
if LANGUAGE_CODE not in dict(LANGUAGES):
    raise ImproperlyConfigured(
        f"LANGUAGE_CODE is {LANGUAGE_CODE!r}; it must be {' or '.join(dict(LANGUAGES))}."
    )
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = True
FORMAT_MODULE_PATH = "shop.formats"

# --- static files and headers ----------------------------------------------------------------------------

STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
SERVESTATIC_USE_FINDERS = DEBUG
SERVESTATIC_AUTOREFRESH = DEBUG
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "servestatic.storage.CompressedManifestStaticFilesStorage"
    },
}

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, "data:"],
        "object-src": ["'none'"],
        "base-uri": [SELF],
        "form-action": [SELF],
        "frame-ancestors": ["'none'"],
    }
}
X_FRAME_OPTIONS = "DENY"
SILENCED_SYSTEM_CHECKS = [
    # Whether other sites below this one's name are to speak TLS only is not for this one to decide.
    "security.W005",
    "security.W021",
    # The log-in page itself says who is locked out; axes' middleware would put a page of its own in its place.
    "axes.W002",
]
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SITE_URL.startswith("https://")
# With this prefix browsers take the cookie from this host alone, over TLS, and from no other below its name.
_HOST_ONLY = "__Host-" if SESSION_COOKIE_SECURE else ""
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = f"{_HOST_ONLY}sessionid", f"{_HOST_ONLY}csrftoken"
LANGUAGE_COOKIE_NAME = f"{_HOST_ONLY}language"
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = LANGUAGE_COOKIE_HTTPONLY = True
LANGUAGE_COOKIE_SECURE = SESSION_COOKIE_SECURE
LANGUAGE_COOKIE_AGE = 365 * 24 * 3600  # seconds
# Not Strict: a link in an alert's mail would find everybody logged out.
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = LANGUAGE_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "shop.session_pages.refuse"
SESSION_COOKIE_AGE = int(parse_duration(env.str("SESSION_AGE", default="12h")).total_seconds())
SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", default=SESSION_COOKIE_SECURE and not DEBUG)
SECURE_HSTS_SECONDS = env.int("SECURE_HSTS_SECONDS", default=31_536_000 if SESSION_COOKIE_SECURE else 0)
BEHIND_PROXY: bool = env.bool("BEHIND_PROXY", default=False)
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if BEHIND_PROXY else None
# How many proxies add to X-Forwarded-For: what stands before theirs is anybody's word.
PROXY_COUNT: int = env.int("PROXY_COUNT", default=1)
if PROXY_COUNT < 1:
    raise ImproperlyConfigured("PROXY_COUNT is the number of proxies in front, 1 or more.")
# An order with 200 lines is about 20 KB.
DATA_UPLOAD_MAX_MEMORY_SIZE = 1_000_000

# --- the engine ------------------------------------------------------------------------------------------

TEMPORAL_ADDRESS: str = env.str("TEMPORAL_ADDRESS", default="127.0.0.1:7233")
TEMPORAL_NAMESPACE: str = env.str("TEMPORAL_NAMESPACE", default="default")
TEMPORAL_API_KEY: str = env.str("TEMPORAL_API_KEY", default="")
_ca, _cert, _key = (
    env.str(f"TEMPORAL_TLS_{part}", default="", multiline=True) for part in ("CA", "CERT", "KEY")
)
try:
    TEMPORAL_TLS = tls_config(
        env.bool("TEMPORAL_TLS", default=bool(TEMPORAL_API_KEY or _ca or _cert or _key)), _ca, _cert, _key
    )
    # By name. The first encrypts what goes to Temporal, all decrypt what comes; none: nothing is encrypted.
    TEMPORAL_PAYLOAD_KEYS: dict[str, bytes] = parse_keys(env.list("TEMPORAL_PAYLOAD_KEYS", default=[]))
except (TLSInvalid, KeysInvalid) as error:
    raise ImproperlyConfigured(str(error)) from None
# Set, workers say which version they are, and Temporal gives tasks to the current one (docs/runbook.md, Upgrade).
BUILD_ID: str = env.str("BUILD_ID", default="")
WORKER_DEPLOYMENT: str = env.str("WORKER_DEPLOYMENT", default="vorkasse")
TEMPORAL_UI_URL: str = env.str("TEMPORAL_UI_URL", default="").rstrip("/")

# --- the shop --------------------------------------------------------------------------------------------

SHOP_NAME: str = env.str("SHOP_NAME", default="Vorkasse Practice Shop")
CURRENCY: str = env.str("CURRENCY", default="EUR")
SHIPPING_COST: int = env.int("SHIPPING_COST", default=0)  # minor units of CURRENCY, added to each order
PAYMENT_WINDOW: timedelta = parse_duration(env.str("PAYMENT_WINDOW", default="14d"))
AUTO_START_SAGAS: bool = env.bool("AUTO_START_SAGAS", default=True)
CARRIER: str = env.str("CARRIER", default="manual")
CARRIERS = {
    "manual": "orders.carriers.manual.ManualCarrier",
    "practice": "orders.carriers.practice.PracticeCarrier",
}

# --- payments --------------------------------------------------------------------------------------------

PAYMENT_GATEWAYS: dict[str, str] = {}
SANDBOX_URL: str = env.str("SANDBOX_URL", default="").rstrip("/")
SANDBOX_API_KEY: str = env.str("SANDBOX_API_KEY", default="")
SANDBOX_WEBHOOK_SECRETS: list[str] = env.list("SANDBOX_WEBHOOK_SECRETS", default=[])
if SANDBOX_URL:
    PAYMENT_GATEWAYS["sandbox"] = "payments.gateways.sandbox.SandboxGateway"
STRIPE_API_KEY: str = env.str("STRIPE_API_KEY", default="")
STRIPE_API_BASE: str = env.str("STRIPE_API_BASE", default="https://api.stripe.com").rstrip("/")
STRIPE_EXTENDED_AUTHORIZATION: bool = env.bool("STRIPE_EXTENDED_AUTHORIZATION", default=False)
STRIPE_WEBHOOK_SECRETS: list[str] = env.list("STRIPE_WEBHOOK_SECRETS", default=[])
if STRIPE_API_KEY:
    PAYMENT_GATEWAYS["stripe"] = "payments.gateways.stripe.StripeGateway"
BANK_IBAN: str = env.str("BANK_IBAN", default="")
BANK_BIC: str = env.str("BANK_BIC", default="")
BANK_ACCOUNT_HOLDER: str = env.str("BANK_ACCOUNT_HOLDER", default="")
BANK_NAME: str = env.str("BANK_NAME", default="")
if BANK_IBAN:
    try:
        check_account(BANK_IBAN, BANK_BIC, BANK_ACCOUNT_HOLDER, BANK_NAME)
    except AccountInvalid as error:
        raise ImproperlyConfigured(str(error)) from None
    PAYMENT_GATEWAYS["bank_transfer"] = "payments.gateways.bank_transfer.BankTransferGateway"
# Requests a second to each provider, by all processes together. Stripe allows 100, of test keys 25.
GATEWAY_RATES: dict[str, float] = {
    "sandbox": 200,
    "stripe": 20 if "_test_" in STRIPE_API_KEY else 80,
    **env.dict("GATEWAY_RATES", cast={"value": float}, default={}),
}
if any(rate <= 0 for rate in GATEWAY_RATES.values()):
    raise ImproperlyConfigured("GATEWAY_RATES: each rate is a number of requests a second above zero.")
# So many calls in a row without an answer, and a provider counts as down.
GATEWAY_DOWN_AFTER: int = env.int("GATEWAY_DOWN_AFTER", default=5)
# Money that comes by bank transfer for an order that was cancelled: sent back by itself, or reviewed.
REFUND_LATE_MONEY: bool = env.bool("REFUND_LATE_MONEY", default=False)
# Minor units; above it a refund by staff needs a further permission. 0: no limit.
REFUND_LIMIT: int = env.int("REFUND_LIMIT", default=0)
# Minor units; above it what staff confirm, write off, send back or resolve takes a second person. 0: never.
SECOND_PERSON_ABOVE: int = env.int("SECOND_PERSON_ABOVE", default=0)
# Orders with money in the books are kept for so many years after the end of the year in which they ended.
RETENTION_YEARS: int = env.int("RETENTION_YEARS", default=10)
if SECOND_PERSON_ABOVE < 0 or RETENTION_YEARS < 0:
    raise ImproperlyConfigured("SECOND_PERSON_ABOVE and RETENTION_YEARS are zero or more.")
# Statements of these accounts are taken as well as those of BANK_IBAN.
BANK_OTHER_IBANS: list[str] = env.list("BANK_OTHER_IBANS", default=[])
# Statement files put here are imported by `runworker`, and moved to its folders done/ and failed/.
STATEMENT_FOLDER: str = env.str("STATEMENT_FOLDER", default="")
# Minor units; a payment may be this much short and be accepted as full. Beyond it takes a further permission.
ACCEPT_DIFFERENCE: int = env.int("ACCEPT_DIFFERENCE", default=100)
# Gateways whose payments are also asked after one by one, hourly; the batch check sees to all.
MONITORED_GATEWAYS: list[str] = env.list("MONITORED_GATEWAYS", default=[])
WEBHOOK_MAX_BYTES = 256 * 1024
# How often the payment providers are asked what has changed; a cron expression, if set, says exactly when.
PAYMENT_CHECK_INTERVAL: timedelta = parse_duration(env.str("PAYMENT_CHECK_INTERVAL", default="1h"))
PAYMENT_CHECK_CRON: str = env.str("PAYMENT_CHECK_CRON", default="").strip()
if PAYMENT_CHECK_CRON.startswith("@every") or "#" in PAYMENT_CHECK_CRON:
    raise ImproperlyConfigured(
        "PAYMENT_CHECK_CRON takes a cron expression such as 5 * * * * without a comment. "
        "For an interval set PAYMENT_CHECK_INTERVAL."
    )
# When all books are compared, once a day.
RECONCILE_CRON: str = env.str("RECONCILE_CRON", default="23 3 * * *").strip()
if not RECONCILE_CRON or RECONCILE_CRON.startswith("@every") or "#" in RECONCILE_CRON:
    raise ImproperlyConfigured("RECONCILE_CRON takes a cron expression such as 23 3 * * * without a comment.")

# --- mail ------------------------------------------------------------------------------------------------

vars().update(env.email_url("EMAIL_URL", default="consolemail://"))
EMAIL_TIMEOUT = 12  # seconds; below the time that an activity has
DEFAULT_FROM_EMAIL: str = env.str("DEFAULT_FROM_EMAIL", default="shop@localhost")
SERVER_EMAIL = DEFAULT_FROM_EMAIL
OPS_ALERT_EMAILS: list[str] = env.list("OPS_ALERT_EMAILS", default=["ops@localhost"])
# Alerts go there too, signed as https://www.standardwebhooks.com/ has it.
OPS_ALERT_WEBHOOK_URL: str = env.str("OPS_ALERT_WEBHOOK_URL", default="")
OPS_ALERT_WEBHOOK_SECRET: str = env.str("OPS_ALERT_WEBHOOK_SECRET", default="")
if OPS_ALERT_WEBHOOK_URL:
    try:
        key_of(OPS_ALERT_WEBHOOK_SECRET)
    except BadSecret:
        raise ImproperlyConfigured(
            "OPS_ALERT_WEBHOOK_SECRET is “whsec_” and the base64 of a random key, such as the output of "
            "echo whsec_$(openssl rand -base64 24)."
        ) from None

# --- metrics and traces ----------------------------------------------------------------------------------

# Whoever scrapes the web processes' /metrics has to name it. Without one they have none.
METRICS_TOKEN: str = env.str("METRICS_TOKEN", default="")
TRACING = bool(
    env.str("OTEL_EXPORTER_OTLP_ENDPOINT", default="")
    or env.str("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", default="")
)
if TRACING:
    MIDDLEWARE.insert(0, "shop.kernel.tracing.request_spans")

# --- logs ------------------------------------------------------------------------------------------------

LOG_FORMAT: str = env.str("LOG_FORMAT", default="line")
if LOG_FORMAT not in ("line", "json"):
    raise ImproperlyConfigured(f"LOG_FORMAT is {LOG_FORMAT!r}; it must be line or json.")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "shop.kernel.logs.LineFormatter",
            "format": "{asctime} {levelname} {name}: {message}",
            "style": "{",
        },
        "json": {"()": "shop.kernel.logs.JSONLines"},
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT}},
    "root": {"handlers": ["console"], "level": env.str("LOG_LEVEL", default="INFO")},
    "loggers": {
        **{name: {"level": "WARNING"} for name in ("httpx2", "temporalio", "stripe", "axes")},
        # They bring handlers of their own, which would be a second format.
        **{name: {"handlers": [], "propagate": True} for name in ("uvicorn", "django")},
        "django.server": {"handlers": [], "propagate": True},
        # It has the queries, in which people search for names; shop.request_log has the line of each request.
        "uvicorn.access": {"handlers": [], "propagate": False},
    },
}
