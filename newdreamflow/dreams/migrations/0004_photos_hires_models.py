from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("dreams", "0003_inputs"),
    ]

    operations = [
        migrations.AddField(
            model_name="dream",
            name="hires",
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name="dream",
            name="wanted_model",
            field=models.CharField(blank=True, max_length=200),
        ),
    ]
