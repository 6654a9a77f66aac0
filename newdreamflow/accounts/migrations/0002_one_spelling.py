from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

import newdreamflow.accounts.models
from newdreamflow.text import folded


def fill_keys(apps: Apps, _schema_editor: BaseDatabaseSchemaEditor) -> None:
    users = apps.get_model("accounts", "User").objects.order_by("pk")
    names: set[str] = set()
    addresses: set[str] = set()
    for user in users.only("pk", "username", "email"):
        keys = []
        for text, taken in ((user.username, names), (user.email, addresses)):
            key = folded(text)
            keys.append(f"{key}#{user.pk}" if key in taken else key)
            taken.add(key)
        users.filter(pk=user.pk).update(name_key=keys[0], email_key=keys[1])


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial")]

    operations = [
        migrations.AlterModelManagers("user", [("objects", newdreamflow.accounts.models.UserManager())]),
        migrations.AddField("user", "name_key", models.TextField(null=True, editable=False)),
        migrations.AddField("user", "email_key", models.TextField(null=True, editable=False)),
        migrations.RunPython(fill_keys, migrations.RunPython.noop),
        migrations.AlterField("user", "name_key", models.TextField(unique=True, editable=False)),
        migrations.AlterField("user", "email_key", models.TextField(unique=True, editable=False)),
        migrations.RemoveConstraint("user", "user_email_once"),
    ]
