from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from newdreamflow.text import folded


def fold_prompts(apps: Apps, _schema_editor: BaseDatabaseSchemaEditor) -> None:
    dreams = apps.get_model("dreams", "Dream").objects.exclude(prompt="")
    for dream in dreams.only("pk", "prompt").iterator(chunk_size=1000):
        dreams.filter(pk=dream.pk).update(folded_prompt=folded(dream.prompt))


class Migration(migrations.Migration):
    dependencies = [("dreams", "0001_initial")]

    operations = [
        migrations.AddField("dream", "folded_prompt", models.TextField(blank=True, editable=False)),
        migrations.AddField("dream", "is_prompt_cut", models.BooleanField(default=False, editable=False)),
        migrations.RunPython(fold_prompts, migrations.RunPython.noop),
    ]
