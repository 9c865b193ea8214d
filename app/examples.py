"""What requests and answers look like, for the OpenAPI document: one story, with the same ids throughout."""

from typing import Any

UPLOAD, SUBJECT, JOB = (
    "upl_01m8398f1bf0tswv4g7j2n6r8y",
    "sub_01m8398gmne0a84bdbs8wn5qd6",
    "job_01m8398gmpfn3rk7t2v9x4z6bc",
)
GENERATION, DRAWING, IMAGE = (
    "gen_01m83a0q5rf4yvn8d2k6m0s7tw",
    "job_01m83a0q5se9p4c7h3j5x8z2bd",
    "img_01m83a1w6tfgkq0r3s5v7y9z2c",
)
WEBHOOK, DELIVERY = "whk_01m8395d2mfbc4e6g8j0k2n4p6", "dlv_01m83a1x0yezt5v7w9x1y3z5b7"
ASKED, STARTED, DONE, DAYS_LATER = (
    "2026-11-23T08:00:00Z",
    "2026-11-23T08:00:01Z",
    "2026-11-23T08:00:21Z",
    "2027-02-21T08:00:21Z",
)
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
BUCKET = "https://photos.example.com/hdb"

SUBJECT_READ: dict[str, Any] = {
    "id": SUBJECT,
    "name": "Ada",
    "status": "processing",
    "base_model": "mini",
    "client_reference": "order-7",
    "photo_kept": True,
    "weights": None,
    "created_at": ASKED,
    "links": {"self": f"/v1/subjects/{SUBJECT}", "job": f"/v1/jobs/{JOB}"},
}
SUBJECT_READY = SUBJECT_READ | {
    "status": "ready",
    "photo_kept": False,
    "weights": {"size": 118_204, "sha256": SHA256, "created_at": DONE, "link": f"/v1/subjects/{SUBJECT}/weights"},
}
JOB_QUEUED: dict[str, Any] = {
    "id": JOB,
    "kind": "personalize",
    "status": "queued",
    "phase": None,
    "created_at": ASKED,
    "started_at": None,
    "finished_at": None,
    "expires_at": None,
    "queue": {"position": 2, "ahead_seconds": 20},
    "progress": {"step": 0, "total_steps": 0, "fraction": 0.0},
    "eta_seconds": 45,
    "attempt": 0,
    "cancel_requested": False,
    "timings": {},
    "result": None,
    "error": None,
    "version": 1,
    "subject_id": SUBJECT,
    "generation_id": None,
    "client_reference": "order-7",
    "links": {
        "self": f"/v1/jobs/{JOB}",
        "events": f"/v1/jobs/{JOB}/events",
        "cancel": f"/v1/jobs/{JOB}/cancel",
        "subject": f"/v1/subjects/{SUBJECT}",
    },
}
JOB_RUNNING = JOB_QUEUED | {
    "status": "running",
    "phase": "finetuning",
    "started_at": STARTED,
    "queue": None,
    "progress": {"step": 10, "total_steps": 40, "fraction": 0.3},
    "eta_seconds": 15,
    "attempt": 1,
    "timings": {"validating": 0.4, "predicting": 0.2},
    "version": 4,
}
GENERATION_READ: dict[str, Any] = {
    "id": GENERATION,
    "subject_id": SUBJECT,
    "status": "succeeded",
    "created_at": ASKED,
    "expires_at": DAYS_LATER,
    "images": [
        {
            "id": IMAGE,
            "position": 0,
            "prompt": "an oil painting of {subject}",
            "seed": 7,
            "width": 512,
            "height": 512,
            "size": 401_223,
            "format": "png",
            "verdict": "ok",
            "url": f"{BUCKET}/picture.png?X-Amz-Signature=...",
        }
    ],
    "links": {
        "self": f"/v1/generations/{GENERATION}",
        "job": f"/v1/jobs/{DRAWING}",
        "subject": f"/v1/subjects/{SUBJECT}",
    },
}
DRAWING_QUEUED = JOB_QUEUED | {
    "id": DRAWING,
    "kind": "generate",
    "generation_id": GENERATION,
    "links": {
        "self": f"/v1/jobs/{DRAWING}",
        "events": f"/v1/jobs/{DRAWING}/events",
        "cancel": f"/v1/jobs/{DRAWING}/cancel",
        "subject": f"/v1/subjects/{SUBJECT}",
        "generation": f"/v1/generations/{GENERATION}",
    },
}
WEBHOOK_READ: dict[str, Any] = {
    "id": WEBHOOK,
    "url": "https://example.com/hook",
    "events": ["job.succeeded", "job.failed"],
    "secret": None,
    "previous_secret_expires_at": None,
    "created_at": ASKED,
    "disabled_at": None,
}
DELIVERY_READ: dict[str, Any] = {
    "id": DELIVERY,
    "event": "job.succeeded",
    "job_id": JOB,
    "subject_id": SUBJECT,
    "tries": 1,
    "created_at": DONE,
    "delivered_at": "2026-11-23T08:00:22Z",
    "next_attempt_at": None,
    "response_status": 204,
    "error": None,
}
EXAMPLES: dict[str, Any] = {
    "UploadRead": {
        "id": UPLOAD,
        "post": {"url": BUCKET, "fields": {"key": "uploads/...", "Content-Type": "image/jpeg", "policy": "..."}},
        "put": {
            "url": f"{BUCKET}/uploads/...?X-Amz-Signature=...",
            "headers": {"Content-Type": "image/jpeg", "Content-Length": "2345678"},
        },
        "expires_at": "2026-11-23T08:05:00Z",
    },
    "UploadedSubject": {"upload_ids": [UPLOAD], "consent": "self", "name": "Ada", "client_reference": "order-7"},
    "SubjectRead": SUBJECT_READY,
    "SubjectAndJob": {"subject": SUBJECT_READ, "job": JOB_QUEUED},
    "SubjectList": {"subjects": [SUBJECT_READY], "next_cursor": None},
    "SubjectChange": {"name": "Grace"},
    "JobRead": JOB_RUNNING,
    "JobList": {"jobs": [JOB_RUNNING], "next_cursor": "AaIHYV9zcFK2xoqPGfGfmA"},
    "EventRead": {"number": 2, "at": STARTED, "status": "running", "phase": None, "attempt": 1},
    "GenerationRead": GENERATION_READ,
    "GenerationAndJob": {"generation": GENERATION_READ | {"status": "queued", "images": []}, "job": DRAWING_QUEUED},
    "GenerationList": {"generations": [GENERATION_READ], "next_cursor": None},
    "NewToken": {"seconds": 600},
    "TokenRead": {"token": "hdb_tok_live_...", "subject_id": None, "expires_at": "2026-11-23T08:10:00Z"},
    "ModelList": {
        "models": [
            {
                "name": "mini",
                "default": True,
                "state": "ready",
                "workers": 1,
                "has_hypernetwork": True,
                "personalize_seconds": 20,
                "generate_seconds": 7,
            }
        ]
    },
    "Usage": {
        "days": [
            {
                "day": "2026-11-23",
                "jobs": {"personalize": 3, "generate": 9},
                "seconds": 131.5,
                "images": 36,
                "bytes": 9_412_330,
            }
        ]
    },
    "NewWebhookEndpoint": {"url": "https://example.com/hook", "events": ["job.succeeded", "job.failed"]},
    "SecretRotation": {"overlap_seconds": 3600},
    "WebhookEndpointRead": WEBHOOK_READ,
    "WebhookEndpointList": {"webhook_endpoints": [WEBHOOK_READ], "next_cursor": None},
    "DeliveryRead": DELIVERY_READ,
    "DeliveryList": {"deliveries": [DELIVERY_READ], "next_cursor": None},
    "WebhookMessage": {
        "type": "job.succeeded",
        "timestamp": DONE,
        "data": {"id": JOB, "status": "succeeded", "kind": "personalize", "subject_id": SUBJECT},
    },
    "Life": {"status": "alive"},
    "Health": {
        "status": "degraded",
        "checks": {"database": "ok", "bucket": "ok", "broker": "ok", "worker": "missing", "housekeeping": "ok"},
    },
}
