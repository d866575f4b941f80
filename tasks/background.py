"""What runs behind the web: sending one SMS."""

from typing import Any

from quart import current_app, g

from quart_app import db, sms
from quart_app.errors import Permanent
from quart_app.models import Message, MessageState
from tasks.base import task


#: A provider that answers a byte now and then would else keep a worker for an hour.
@task(bind=True, max_attempts=3, time_limit=60)
def async_send_sms(self: Any, to: sms.Number, text: sms.Text) -> dict[str, Any]:
    """Sends one SMS. It is handed to the provider at most once."""
    provider = sms.provider(current_app.config["SMS_PROVIDER"])
    with db.session() as session:
        message, go = sms.begin(session, g.job.id, to, text, provider.name)
    if go:
        self.progress(1, 2, f"handing to {provider.name}")
        self.log(f"Handing message {message.id} to {provider.name}.")
        state, error = _hand_over(provider, message)
    else:
        state, error = message.state, message.error
    if state is not MessageState.SENT:
        raise Permanent(f"message {message.id} is {state}: {error}")
    self.progress(2, 2, "sent")
    self.log(f"{provider.name} took message {message.id}.")
    return {"message": message.id, "state": str(state), "segments": sms.segments(text).count}


def _hand_over(provider: sms.Provider, message: Message) -> tuple[MessageState, str | None]:
    """Calls the provider and records what became of the message; raises NotReached to try again."""
    error: str | None = None
    try:
        provider.send(message.to, message.text, message.id)
        state = MessageState.SENT
    except sms.NotReached as reason:
        _record(message, MessageState.WAITING, str(reason))
        raise
    except sms.Refused as reason:
        state, error = MessageState.FAILED, str(reason)
    except sms.OutcomeUnknown as reason:
        state, error = MessageState.UNKNOWN, str(reason)
    _record(message, state, error)
    return state, error


def _record(message: Message, state: MessageState, error: str | None) -> None:
    with db.session() as session:
        sms.record(session, message.id, state, error)
